//! The contract that every transport must pass (feature `testing`), and the harness it runs on.
//!
//! A transport's `tests/contract.rs` is one line, and one function that makes two connected ends:
//!
//! ```text
//! async fn ends() -> router_link::testing::Ends { /* dial, accept */ }
//! router_link::contract!(ends);
//! ```
//!
//! A link that carries small messages only ([`Capabilities`](crate::Capabilities): not ordered, or not streaming) runs the
//! scenarios that such links must pass, with `router_link::contract!(small: ends);`. Those left out, and why:
//!
//! | left out | because |
//! |---|---|
//! | all of `tunnels`, `trailers_pass_both_ways` | there are none; `small` has their refusal |
//! | `bodies_of_every_size_class_come_back_exact`, `both_directions_stream_at_once`, `an_answer_may_come_before_the_request_has_ended`, `a_reader_that_stops_does_not_stop_others`, `a_slot_of_the_lease_is_free_only_when_the_answer_is_complete` | a message is one frame: it begins and ends at once. `small` has the sizes that fit, and the slot of a one-way endpoint |
//! | `a_dropped_response_body_...`, `an_upload_that_fails_...`, `a_request_body_that_...`, `an_answer_that_is_dropped_midway_...`, `a_response_body_that_fails_...`, `many_cancelled_exchanges_...` | likewise: nothing can be cut in its middle. `small` has those that are dropped at any time |
//! | `a_link_that_dies_...`, `a_request_on_a_dead_link_...`, `a_driver_that_is_dropped_...` | nobody tells that a peer is gone but its silence, of which there is a scenario |
//! | `a_frame_over_the_limit_...`, `a_stranger_that_speaks_out_of_turn_...` | the carrier takes no such frame, nor a stranger's before its handshake |
//!
//! Each scenario is a test of its own. Nothing here sleeps: scenarios wait on conditions, under one deadline each.

mod body;
pub mod cancellation;
mod harness;
pub mod lifecycle;
pub mod messages;
pub mod scattering;
pub mod small;
pub mod tunnels;

pub use body::{Feed, feed, pattern, read};
pub use harness::{Ends, Events, Handler, Pair, PairSettings, Side, handler, within};
pub use scattering::Scattering;

/// Every scenario of the contract as a test, run against the ends that `$ends` makes: an `async fn() -> Ends`. With `small:`
/// before it, those that a link must pass which carries small messages only ([`testing`](crate::testing) says which and why).
#[macro_export]
macro_rules! contract {
    (small: $ends:ident) => {
        $crate::contract!(@ $ends, lifecycle:
            a_service_joins_registers_and_becomes_routable,
            a_refused_service_is_told_why,
            a_refused_endpoint_is_named,
            a_drained_link_takes_no_new_requests_and_finishes_the_old,
            a_closed_link_ends_for_both_sides,
            a_request_that_never_left_comes_back_whole,
            a_lease_that_is_used_up_refuses_without_running_a_handler,
            a_silent_peer_is_degraded_and_then_dead,
            an_application_that_panics_fails_one_request_and_no_more,
            a_service_calls_through_its_gateway,
            a_link_moves_between_runtimes,
            a_driver_moves_between_runtimes
        );
        $crate::contract!(@ $ends, messages:
            a_small_request_and_its_answer_are_whole,
            heads_arrive_as_they_were_sent,
            the_context_of_a_request_arrives,
            many_exchanges_interleave_without_mixing,
            a_wrong_length_is_never_a_complete_body,
            hop_by_hop_fields_are_refused_before_anything_is_sent,
            a_head_that_fits_no_frame_is_refused
        );
        $crate::contract!(@ $ends, cancellation:
            a_dropped_exchange_cancels_the_handler,
            a_deadline_is_told_as_the_reason,
            a_handler_that_goes_without_an_answer_has_failed,
            an_exchange_ends_at_its_deadline_and_the_handler_is_told,
            a_refused_request_comes_back_whole,
            a_request_whose_deadline_has_passed_is_not_sent
        );
        $crate::contract!(@ $ends, small:
            bodies_that_fit_are_whole_however_they_come,
            a_request_that_does_not_fit_is_refused_before_it_is_sent,
            an_answer_that_does_not_fit_is_told_as_such,
            trailers_and_tunnels_are_refused,
            the_head_of_a_one_way_answer_does_not_wait_for_its_end,
            what_is_gathered_is_gathered_until_the_deadline,
            a_body_that_fails_is_never_sent,
            exchanges_that_are_dropped_at_any_time_leave_nothing_behind,
            a_large_endpoint_set_and_its_answer_arrive_whole,
            a_side_that_leaves_in_good_order_loses_nothing
        );
        $crate::contract!(@threads $ends, messages: many_exchanges_interleave_without_mixing);
        $crate::contract!(@threads $ends, small: exchanges_that_are_dropped_at_any_time_leave_nothing_behind);
    };
    ($ends:ident) => {
        $crate::contract!(@ $ends, lifecycle:
            a_service_joins_registers_and_becomes_routable,
            a_refused_service_is_told_why,
            a_refused_endpoint_is_named,
            a_drained_link_takes_no_new_requests_and_finishes_the_old,
            a_closed_link_ends_for_both_sides,
            a_link_that_dies_leaves_sent_requests_with_an_unknown_outcome,
            a_request_on_a_dead_link_comes_back_whole,
            a_request_that_never_left_comes_back_whole,
            a_lease_that_is_used_up_refuses_without_running_a_handler,
            a_slot_of_the_lease_is_free_only_when_the_answer_is_complete,
            a_silent_peer_is_degraded_and_then_dead,
            a_frame_over_the_limit_closes_the_link_with_its_code,
            a_stranger_that_speaks_out_of_turn_is_told_so,
            a_driver_that_is_dropped_tells_its_application_once,
            an_application_that_panics_fails_one_request_and_no_more,
            a_service_calls_through_its_gateway,
            a_link_moves_between_runtimes,
            a_driver_moves_between_runtimes
        );
        $crate::contract!(@ $ends, messages:
            a_small_request_and_its_answer_are_whole,
            bodies_of_every_size_class_come_back_exact,
            heads_arrive_as_they_were_sent,
            the_context_of_a_request_arrives,
            both_directions_stream_at_once,
            an_answer_may_come_before_the_request_has_ended,
            trailers_pass_both_ways,
            many_exchanges_interleave_without_mixing,
            a_reader_that_stops_does_not_stop_others,
            a_wrong_length_is_never_a_complete_body,
            hop_by_hop_fields_are_refused_before_anything_is_sent,
            a_head_that_fits_no_frame_is_refused
        );
        $crate::contract!(@ $ends, cancellation:
            a_dropped_exchange_cancels_the_handler,
            a_dropped_response_body_cancels_the_handler,
            a_dropped_response_body_ends_the_upload_too,
            an_upload_that_fails_after_the_head_cancels_with_its_reason,
            a_request_body_that_outlives_the_answer_ends,
            a_deadline_is_told_as_the_reason,
            a_handler_that_goes_without_an_answer_has_failed,
            an_exchange_ends_at_its_deadline_and_the_handler_is_told,
            an_answer_that_is_dropped_midway_is_visibly_cut,
            a_refused_request_comes_back_whole,
            a_request_body_that_fails_cancels_with_its_reason,
            a_response_body_that_fails_is_visibly_cut,
            a_request_whose_deadline_has_passed_is_not_sent,
            many_cancelled_exchanges_leave_nothing_behind
        );
        $crate::contract!(@ $ends, tunnels:
            a_tunnel_carries_every_piece_at_once,
            a_tunnel_carries_more_than_its_windows,
            a_tunnel_that_is_refused_is_an_ordinary_exchange,
            an_acceptance_that_nobody_asked_for_is_an_ordinary_answer,
            work_on_a_tunnel_ends_when_its_opener_leaves,
            a_tunnel_that_is_cut_does_not_end_in_good_order
        );
        $crate::contract!(@threads $ends, messages: many_exchanges_interleave_without_mixing);
        $crate::contract!(@threads $ends, tunnels: a_tunnel_carries_more_than_its_windows);
        $crate::contract!(@threads $ends, cancellation: many_cancelled_exchanges_leave_nothing_behind);
    };
    // Once more where every task may run on any thread.
    (@threads $ends:ident, $group:ident: $name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
        async fn $name() {
            $crate::testing::within($crate::testing::$group::$name($ends().await)).await;
        }
    };
    (@ $ends:ident, $group:ident: $($name:ident),+) => {
        mod $group {
            $(
                #[tokio::test]
                async fn $name() {
                    $crate::testing::within($crate::testing::$group::$name(super::$ends().await)).await;
                }
            )+
        }
    };
}
