//! Endpoint sets travel in parts and are applied whole (SPEC 4, ENDPOINTS_UPDATE and ENDPOINTS_RESULT).

use std::collections::{BTreeMap, HashSet};

use super::Session;
use super::event::ProtocolError;
use crate::endpoint::{EndpointDescriptor, EndpointId};
use crate::frame::{EndpointsResult, EndpointsUpdate, Frame, RefusedEndpoint};
use crate::limits;
use crate::wire::Wire;

/// Room for a part's own fields beside its list.
const PART_OVERHEAD: usize = 256;
/// The same where frames are small: what those fields really take at most.
const SMALL_PART_OVERHEAD: usize = 80;
/// Of one refusal, beside its reason.
const REFUSAL_OVERHEAD: usize = 32;

/// Why an endpoint set cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    #[error("{0} endpoints are over the limit of {most}", most = limits::ENDPOINTS)]
    TooMany(usize),
    #[error("the endpoint set takes {0} bytes, over the limit of {most}: shorten schemas and summaries", most = limits::ENDPOINTS_BYTES)]
    TooLarge(usize),
    #[error(
        "{method} {path} takes {size} bytes, over the {most} that fit one frame: shorten its schemas, summary or tags"
    )]
    EndpointTooLarge { id: EndpointId, method: http::Method, path: String, size: usize, most: usize },
    #[error("{0}")]
    Ids(String),
    #[error("the link is not established")]
    NotEstablished,
}

/// Splits an endpoint set into ENDPOINTS_UPDATE frames of at most `max_frame` bytes of payload each.
pub(super) fn update_frames(
    revision: u64,
    endpoints: Vec<EndpointDescriptor>,
    max_frame: usize,
) -> Result<Vec<Frame>, RegisterError> {
    frames_of_update(revision, endpoints, max_frame - PART_OVERHEAD)
}

/// The same where frames are small.
pub(super) fn small_update_frames(
    revision: u64,
    endpoints: Vec<EndpointDescriptor>,
    max_frame: usize,
) -> Result<Vec<Frame>, RegisterError> {
    frames_of_update(revision, endpoints, max_frame.saturating_sub(SMALL_PART_OVERHEAD))
}

fn frames_of_update(
    revision: u64,
    endpoints: Vec<EndpointDescriptor>,
    room: usize,
) -> Result<Vec<Frame>, RegisterError> {
    if endpoints.len() > limits::ENDPOINTS {
        return Err(RegisterError::TooMany(endpoints.len()));
    }
    let mut total = 0;
    let mut parts = vec![Vec::new()];
    let mut filled = 0;
    for endpoint in endpoints {
        let size = crate::wire::encode(&endpoint).len();
        if size > room {
            let (id, method, path) = (endpoint.id, endpoint.method, endpoint.path.to_string());
            return Err(RegisterError::EndpointTooLarge { id, method, path, size, most: room });
        }
        total += size;
        if filled + size > room {
            parts.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(part) = parts.last_mut() {
            part.push(endpoint);
        }
    }
    if total > limits::ENDPOINTS_BYTES {
        return Err(RegisterError::TooLarge(total));
    }
    let last = parts.len() - 1;
    let frame = |(part, endpoints)| {
        let update = EndpointsUpdate { revision, part: part as u32, last: part == last, endpoints };
        Frame::EndpointsUpdate(Box::new(Wire::new(update)))
    };
    Ok(parts.into_iter().enumerate().map(frame).collect())
}

/// Splits a result likewise.
pub(super) fn result_frames(revision: u64, refused: Vec<RefusedEndpoint>, max_frame: usize) -> Vec<Frame> {
    frames_of_result(revision, 0, refused, max_frame - PART_OVERHEAD)
}

/// The same where frames are small, and told apart by a generation.
pub(super) fn small_result_frames(
    revision: u64,
    generation: u64,
    refused: Vec<RefusedEndpoint>,
    max_frame: usize,
) -> Vec<Frame> {
    frames_of_result(revision, generation, refused, max_frame.saturating_sub(SMALL_PART_OVERHEAD))
}

fn frames_of_result(revision: u64, generation: u64, refused: Vec<RefusedEndpoint>, room: usize) -> Vec<Frame> {
    let mut parts = vec![Vec::new()];
    let mut filled = 0;
    for mut refusal in refused {
        refusal.reason = crate::frame::bounded_text(refusal.reason);
        let size = refusal.reason.len() + REFUSAL_OVERHEAD;
        if filled + size > room {
            parts.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(part) = parts.last_mut() {
            part.push(refusal);
        }
    }
    let last = parts.len() - 1;
    let frame = |(part, refused)| {
        let result = EndpointsResult { revision, generation, part: part as u32, last: part == last, refused };
        Frame::EndpointsResult(Box::new(Wire::new(result)))
    };
    parts.into_iter().enumerate().map(frame).collect()
}

/// Puts a list's parts together again.
#[derive(Debug)]
pub(super) struct Assembly<T> {
    revision: u64,
    next_part: u32,
    items: Vec<T>,
    bytes: usize,
}

impl<T> Default for Assembly<T> {
    fn default() -> Self {
        Self { revision: 0, next_part: 0, items: Vec::new(), bytes: 0 }
    }
}

/// One part, whatever its list holds.
pub(super) struct Part<T> {
    pub(super) revision: u64,
    pub(super) part: u32,
    pub(super) last: bool,
    pub(super) items: Vec<T>,
    pub(super) bytes: usize,
}

impl<T> Assembly<T> {
    /// Adds a part; gives the whole list with its last one. Part 0 begins anew.
    pub(super) fn add(&mut self, name: &'static str, part: Part<T>) -> Result<Option<Vec<T>>, ProtocolError> {
        if part.part == 0 {
            *self = Self { revision: part.revision, ..Self::default() };
        }
        if part.part != self.next_part || part.revision != self.revision || part.revision == 0 {
            let text = format!(
                "{name} revision {} part {} where revision {} part {} was due",
                part.revision, part.part, self.revision, self.next_part
            );
            return Err(ProtocolError::new(text));
        }
        self.next_part += 1;
        self.bytes += part.bytes;
        self.items.extend(part.items);
        if self.items.len() > limits::ENDPOINTS || self.bytes > limits::ENDPOINTS_BYTES + limits::ENDPOINTS_BYTES / 4 {
            return Err(ProtocolError::new(format!("{name} is over its limits")));
        }
        Ok(part.last.then(|| std::mem::take(self).items))
    }
}

/// Puts a list's parts together that come in any order, and perhaps not all.
///
/// A list is named by its revision and generation. Of two the higher is the newer, whose first part drops what there is of
/// the older; parts of an older one come too late. A list that comes once more is put together once more.
#[derive(Debug)]
pub(super) struct Parts<T> {
    of: (u64, u64),
    parts: BTreeMap<u32, Vec<T>>,
    /// How many there are, once the last has come.
    count: Option<usize>,
    items: usize,
    bytes: usize,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self::of(0, 0)
    }
}

impl<T> Parts<T> {
    const fn of(revision: u64, generation: u64) -> Self {
        Self { of: (revision, generation), parts: BTreeMap::new(), count: None, items: 0, bytes: 0 }
    }

    /// Adds a part; gives the whole list when it is complete.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        generation: u64,
        part: Part<T>,
    ) -> Result<Option<Vec<T>>, ProtocolError> {
        let of = (part.revision, generation);
        if part.revision == 0 {
            return Err(ProtocolError::new(format!("{name} of revision 0")));
        }
        if of < self.of {
            return Ok(None);
        }
        if of > self.of {
            *self = Self::of(of.0, of.1);
        }
        let place = part.part as usize;
        // No part is without an item but that of an empty list.
        let most = self.count.unwrap_or(limits::ENDPOINTS);
        let is_behind_last = part.last && self.parts.last_key_value().is_some_and(|(last, _)| *last > part.part);
        if place >= most || is_behind_last || part.last && self.count.is_some_and(|count| count != place + 1) {
            let text = format!("{name} revision {} part {} does not fit the others", part.revision, part.part);
            return Err(ProtocolError::new(text));
        }
        if self.parts.contains_key(&part.part) {
            return Ok(None);
        }
        self.items += part.items.len();
        self.bytes += part.bytes;
        if self.items > limits::ENDPOINTS || self.bytes > limits::ENDPOINTS_BYTES + limits::ENDPOINTS_BYTES / 4 {
            return Err(ProtocolError::new(format!("{name} is over its limits")));
        }
        if part.last {
            self.count = Some(place + 1);
        }
        self.parts.insert(part.part, part.items);
        if self.count != Some(self.parts.len()) {
            return Ok(None);
        }
        let whole = std::mem::replace(self, Self::of(of.0, of.1));
        Ok(Some(whole.parts.into_values().flatten().collect()))
    }
}

/// An endpoint set names each id once.
pub(super) fn check_ids(endpoints: &[EndpointDescriptor]) -> Result<(), ProtocolError> {
    let mut seen: HashSet<EndpointId> = HashSet::with_capacity(endpoints.len());
    match endpoints.iter().find(|endpoint| !seen.insert(endpoint.id)) {
        Some(twice) => Err(ProtocolError::new(format!("endpoint id {} stands twice in one set", twice.id))),
        None => Ok(()),
    }
}

impl Session {
    /// Service: offers its whole endpoint set, replacing the one before.
    ///
    /// # Errors
    /// When the set is over a limit, or the link is not established.
    pub fn register(&mut self, revision: u64, endpoints: Vec<EndpointDescriptor>) -> Result<(), RegisterError> {
        if !self.is_established() {
            return Err(RegisterError::NotEstablished);
        }
        check_ids(&endpoints).map_err(|error| RegisterError::Ids(error.text))?;
        if self.datagrams.is_some() {
            return self.offer(revision, endpoints);
        }
        for frame in update_frames(revision, endpoints, self.peer.max_frame as usize)? {
            self.scheduler.control(frame);
        }
        Ok(())
    }

    /// Gateway: answers an endpoint set; what is not named is accepted.
    pub fn endpoints_result(&mut self, revision: u64, refused: Vec<RefusedEndpoint>) {
        if self.datagrams.is_some() && self.is_established() {
            self.answer_offer(revision, refused);
        } else if self.is_established() {
            for frame in result_frames(revision, refused, self.peer.max_frame as usize) {
                self.scheduler.control(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u32, summary: usize) -> Vec<EndpointDescriptor> {
        (1..=count)
            .map(|id| {
                let path = format!("/e/{id}").parse().unwrap();
                let mut endpoint = EndpointDescriptor::new(EndpointId::new(id).unwrap(), http::Method::GET, path);
                endpoint.summary = Some("s".repeat(summary));
                endpoint
            })
            .collect()
    }

    #[test]
    fn a_large_set_travels_in_parts_that_each_fit_a_frame() {
        let set = endpoints(10_000, 100);
        let frames = update_frames(3, set.clone(), 64 * 1024).unwrap();
        assert!(frames.len() > 10);
        let mut assembly = Assembly::default();
        let mut whole = None;
        for frame in frames {
            assert!(crate::codec::encoded_len(&frame) <= 64 * 1024 + limits::FRAME_HEADER_BYTES);
            let Frame::EndpointsUpdate(wire) = frame else { panic!("not an update") };
            assert!(whole.is_none());
            let bytes = wire.bytes().len();
            let EndpointsUpdate { revision, part, last, endpoints: items } = wire.into_value();
            whole = assembly.add("ENDPOINTS_UPDATE", Part { revision, part, last, items, bytes }).unwrap();
        }
        assert_eq!(whole, Some(set));
    }

    #[test]
    fn sets_beyond_the_limits_are_refused_before_anything_is_sent() {
        assert_eq!(update_frames(1, endpoints(10_001, 0), 65_536), Err(RegisterError::TooMany(10_001)));
        assert!(matches!(update_frames(1, endpoints(1, 70_000), 65_536), Err(RegisterError::EndpointTooLarge { .. })));
        assert!(matches!(update_frames(1, endpoints(100, 50_000), 65_536), Err(RegisterError::TooLarge(_))));
    }

    #[test]
    fn a_part_out_of_order_is_refused() {
        let mut assembly: Assembly<u8> = Assembly::default();
        let part = |revision, part| Part { revision, part, last: false, items: vec![1], bytes: 1 };
        assert!(assembly.add("X", part(1, 0)).is_ok());
        assert!(assembly.add("X", part(1, 2)).is_err());
        let mut assembly: Assembly<u8> = Assembly::default();
        assert!(assembly.add("X", part(1, 0)).is_ok());
        assert!(assembly.add("X", part(2, 1)).is_err());
        assert!(assembly.add("X", part(2, 0)).is_ok());
        assert!(assembly.add("X", part(2, 1)).is_ok());
    }

    #[test]
    fn parts_in_any_order_make_a_list_and_a_newer_one_takes_its_place() {
        let mut parts: Parts<u32> = Parts::default();
        let part = |revision, part, last| Part { revision, part, last, items: vec![part], bytes: 1 };
        let mut add = |generation, part| parts.add("X", generation, part);
        assert_eq!(add(0, part(2, 2, true)), Ok(None));
        assert_eq!(add(0, part(2, 0, false)), Ok(None));
        assert_eq!(add(0, part(1, 1, false)), Ok(None), "of an older one");
        assert_eq!(add(0, part(2, 0, false)), Ok(None), "once more");
        assert_eq!(add(0, part(2, 1, false)), Ok(Some(vec![0, 1, 2])));
        assert_eq!(add(0, part(2, 1, false)), Ok(None), "the list comes once more");
        assert_eq!(add(1, part(2, 0, true)), Ok(Some(vec![0])), "of a newer generation");
        assert_eq!(add(0, part(2, 0, false)), Ok(None), "too late");
        assert_eq!(add(0, part(3, 1, true)), Ok(None));
        assert!(add(0, part(3, 2, false)).is_err() && add(0, part(3, 0, true)).is_err());
        assert!(add(0, part(3, 10_000, false)).is_err() && add(0, part(0, 0, true)).is_err());
    }

    #[test]
    fn small_frames_take_a_descriptor_or_name_it() {
        let set = endpoints(200, 100);
        let frames = small_update_frames(3, set.clone(), limits::DATAGRAM_FRAME_BYTES as usize).unwrap();
        let mut parts = Parts::default();
        let mut whole = None;
        for frame in frames.into_iter().rev() {
            let most = limits::DATAGRAM_FRAME_BYTES as usize + limits::FRAME_HEADER_BYTES;
            assert!(crate::codec::encoded_len(&frame) <= most && whole.is_none());
            let Frame::EndpointsUpdate(wire) = frame else { panic!("not an update") };
            let bytes = wire.bytes().len();
            let EndpointsUpdate { revision, part, last, endpoints: items } = wire.into_value();
            whole = parts.add("ENDPOINTS_UPDATE", 0, Part { revision, part, last, items, bytes }).unwrap();
        }
        assert_eq!(whole, Some(set));
        let refused = small_update_frames(1, endpoints(1, 2_000), 1132);
        assert!(
            matches!(refused, Err(RegisterError::EndpointTooLarge { ref path, .. }) if path == "/e/1"),
            "{refused:?}"
        );
        let reasons =
            (1..=9).map(|id| RefusedEndpoint { id: EndpointId::new(id).unwrap(), reason: "r".repeat(1_000) }).collect();
        for frame in small_result_frames(u64::MAX, u64::MAX, reasons, limits::DATAGRAM_FRAME_BYTES as usize) {
            let most = limits::DATAGRAM_FRAME_BYTES as usize + limits::FRAME_HEADER_BYTES;
            assert!(crate::codec::encoded_len(&frame) <= most);
        }
    }

    #[test]
    fn an_id_that_stands_twice_is_refused() {
        let mut set = endpoints(3, 0);
        assert!(check_ids(&set).is_ok());
        set[2].id = set[0].id;
        assert!(check_ids(&set).is_err());
    }
}
