//! Who has which share, as gateways come, go, and turn out to be the same.

use futures_util::FutureExt as _;
use router_common::identity::Incarnation;
use router_common::session::lease::Permit;

use super::*;

fn dialled(entry: u8) -> Place {
    Place::dialled(entry)
}

fn found(entry: u8, number: u64) -> Place {
    Place { entry, number }
}

fn gateway(name: &str) -> Option<GatewayId> {
    Some(GatewayId(name.parse().unwrap(), Incarnation([7; 16])))
}

fn shares(whole: u32, entries: u8) -> Arc<Shares> {
    Shares::new(whole, usize::from(entries), 0..entries)
}

/// Two gateways, `a` and `b`, that are there.
fn two(whole: u32) -> Arc<Shares> {
    let shares = shares(whole, 2);
    for (entry, name) in [(0, "a"), (1, "b")] {
        shares.welcomed(dialled(entry), gateway(name).as_ref());
    }
    shares
}

fn take(shares: &Shares, place: Place, count: usize) -> Vec<Permit> {
    let lease = shares.lease(place);
    (0..count).map(|_| lease.try_acquire().unwrap()).collect()
}

#[track_caller]
fn check(shares: &Shares, places: &[Place], limits: &[u32]) {
    let found: Vec<u32> = places.iter().map(|place| shares.lease(*place).limit()).collect();
    assert_eq!(found, limits);
}

#[test]
fn entries_divide_the_bound_and_nobody_is_told_what_hello_says() {
    let shares = shares(11, 2);
    assert_eq!([shares.add(dialled(0)), shares.add(dialled(1))], [[], []]);
    check(&shares, &[dialled(0), dialled(1)], &[6, 5]);
    assert_eq!(shares.welcomed(dialled(0), gateway("a").as_ref()).1, []);
    assert_eq!(shares.welcomed(dialled(1), gateway("b").as_ref()).1, []);
    assert_eq!(shares.lease(dialled(1)).generation(), 0);
}

#[test]
fn two_ways_to_one_gateway_have_one_lease_of_both_shares() {
    let (shares, [tcp, broker]) = (shares(11, 2), [dialled(0), dialled(1)]);
    let (first, _) = shares.welcomed(tcp, gateway("a").as_ref());
    let (second, changed) = shares.welcomed(broker, gateway("a").as_ref());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(changed, [tcp, broker]);
    assert_eq!((first.limit(), first.generation()), (11, 1));
    // A further link, or one that comes again.
    assert_eq!(shares.welcomed(broker, gateway("a").as_ref()).1, []);
    // The second address is given to another gateway.
    let (third, changed) = shares.welcomed(broker, gateway("b").as_ref());
    assert!(!Arc::ptr_eq(&first, &third));
    assert_eq!(changed, [tcp, broker]);
    assert_eq!([first.limit(), third.limit()], [6, 5]);
    assert_eq!(third.generation(), 2);
}

#[test]
fn a_gateway_that_comes_back_by_another_name_keeps_what_its_place_had() {
    let shares = shares(8, 1);
    let (before, _) = shares.welcomed(dialled(0), gateway("a").as_ref());
    let (after, changed) = shares.welcomed(dialled(0), gateway("b").as_ref());
    assert!(Arc::ptr_eq(&before, &after) && changed.is_empty());
}

#[test]
fn gateways_that_are_found_divide_their_entrys_share_and_add_up_to_it() {
    let shares = Shares::new(1000, 2, [0]);
    let [a, b, c] = [found(1, 1), found(1, 2), found(1, 3)];
    check(&shares, &[dialled(0)], &[1000]);
    assert_eq!(shares.add(a), [dialled(0), a]);
    check(&shares, &[dialled(0), a], &[500, 500]);
    assert_eq!(shares.add(b), [a, b]);
    assert_eq!(shares.add(c), [a, b, c]);
    check(&shares, &[dialled(0), a, b, c], &[500, 167, 167, 166]);
    // One of them is also dialled.
    shares.welcomed(dialled(0), gateway("x").as_ref());
    let (lease, changed) = shares.welcomed(b, gateway("x").as_ref());
    assert_eq!((lease.limit(), changed), (667, vec![dialled(0), b]));
    assert_eq!(shares.remove(a), [dialled(0), b, c]);
    check(&shares, &[dialled(0), b, c], &[750, 750, 250]);
    // Found again, it is told by a higher generation than it may remember.
    let again = found(1, 4);
    shares.add(again);
    assert!(shares.lease(again).generation() > 3);
    check(&shares, &[dialled(0), b, c, again], &[667, 667, 167, 166]);
}

#[test]
fn gateways_that_do_not_say_which_they_are_share_nothing() {
    let shares = shares(8, 2);
    let [(one, _), (two, changed)] = [0, 1].map(|entry| shares.welcomed(dialled(entry), None));
    assert!(!Arc::ptr_eq(&one, &two) && changed.is_empty());
}

#[test]
fn a_bound_that_is_too_small_to_be_divided_is_one_slot_for_each_gateway() {
    let shares = shares(1, 3);
    check(&shares, &[dialled(0), dialled(1), dialled(2)], &[1, 1, 1]);
    for entry in 0..3 {
        shares.welcomed(dialled(entry), gateway("a").as_ref());
    }
    assert_eq!(shares.lease(dialled(0)).limit(), 1, "and no more for a gateway with several ways");
}

#[test]
fn who_cannot_be_reached_lends_its_share_until_it_answers() {
    let (shares, [a, b]) = (two(11), [dialled(0), dialled(1)]);
    assert_eq!(shares.lost(b), [], "it may be there again at once");
    check(&shares, &[a, b], &[6, 5]);
    assert_eq!(shares.dialled_in_vain(b), [a, b]);
    check(&shares, &[a, b], &[11, 0]);
    assert_eq!(shares.dialled_in_vain(b), []);
    assert_eq!(shares.welcomed(b, gateway("b").as_ref()).1, [a, b]);
    check(&shares, &[a, b], &[6, 5]);
    assert!(shares.lease(a).generation() > 1, "what is told of it is newer than what was");
}

#[test]
fn one_link_that_is_dialled_in_vain_beside_another_lends_nothing() {
    let (shares, b) = (two(8), dialled(1));
    assert_eq!(shares.dialled_in_vain(b), []);
    assert_eq!(shares.lost(b), [dialled(0), b], "that was the last one");
    check(&shares, &[dialled(0), b], &[8, 0]);
}

#[test]
fn a_gateway_keeps_the_shares_of_all_its_ways_while_one_of_them_leads_there() {
    let shares = shares(12, 3);
    let places = [dialled(0), dialled(1), dialled(2)];
    for (place, name) in places.iter().zip(["a", "b", "a"]) {
        shares.welcomed(*place, gateway(name).as_ref());
    }
    check(&shares, &places, &[8, 4, 8]);
    shares.lost(places[0]);
    assert_eq!(shares.dialled_in_vain(places[0]), []);
    check(&shares, &places, &[8, 4, 8]);
    shares.lost(places[2]);
    shares.dialled_in_vain(places[2]);
    check(&shares, &places, &[0, 12, 0]);
    shares.welcomed(places[2], gateway("a").as_ref());
    check(&shares, &places, &[8, 4, 8]);
}

#[test]
fn where_nobody_can_be_reached_all_count_and_the_first_who_answers_has_everything() {
    let (shares, places) = (shares(8, 2), [dialled(0), dialled(1)]);
    for place in places {
        shares.dialled_in_vain(place);
    }
    check(&shares, &places, &[4, 4]);
    shares.welcomed(places[1], gateway("b").as_ref());
    check(&shares, &places, &[0, 8]);
}

#[test]
fn an_entry_lends_its_share_when_none_of_those_found_there_can_be_reached() {
    let shares = Shares::new(8, 2, [0]);
    let [one, other] = [found(1, 1), found(1, 2)];
    shares.add(one);
    shares.add(other);
    check(&shares, &[dialled(0), one, other], &[4, 2, 2]);
    shares.dialled_in_vain(one);
    check(&shares, &[dialled(0), one, other], &[4, 0, 4]);
    shares.dialled_in_vain(other);
    check(&shares, &[dialled(0), one, other], &[8, 0, 0]);
    shares.remove(one);
    shares.remove(other);
    check(&shares, &[dialled(0)], &[8]);
}

#[test]
fn what_was_lent_comes_back_as_what_is_in_flight_ends() {
    let (shares, [a, b]) = (two(8), [dialled(0), dialled(1)]);
    shares.lost(b);
    shares.dialled_in_vain(b);
    let mut held = take(&shares, a, 7);
    shares.welcomed(b, gateway("b").as_ref());
    check(&shares, &[a, b], &[4, 1]);
    assert!(shares.lease(a).try_acquire().is_none());
    for (left, limit) in [(6, 2), (5, 3), (4, 4)] {
        held.truncate(left);
        assert!(shares.freed().now_or_never().is_some());
        assert_eq!(shares.settle(), [b]);
        check(&shares, &[a, b], &[4, limit]);
    }
    // A change of a limit is heard of too, once; but what ends now concerns nobody.
    let _ = shares.freed().now_or_never();
    drop(held);
    assert!(shares.freed().now_or_never().is_none());
}

#[test]
fn nobody_gets_what_a_gateway_that_is_gone_still_has_in_flight() {
    let shares = Shares::new(10, 1, []);
    let [one, other] = [found(0, 1), found(0, 2)];
    shares.add(one);
    shares.add(other);
    let mut held = take(&shares, one, 4);
    shares.remove(one);
    check(&shares, &[other], &[6]);
    held.pop();
    shares.settle();
    check(&shares, &[other], &[7]);
    held.clear();
    shares.settle();
    check(&shares, &[other], &[10]);
    assert!(shares.book().past.is_empty());
}
