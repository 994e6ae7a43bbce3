//! Endpoint sets travel in parts and are applied whole (SPEC 4, ENDPOINTS_UPDATE and ENDPOINTS_RESULT).

use std::collections::HashSet;

use super::event::ProtocolError;
use crate::endpoint::{EndpointDescriptor, EndpointId};
use crate::frame::{EndpointsResult, EndpointsUpdate, Frame, RefusedEndpoint};
use crate::limits;
use crate::wire::Wire;

/// Room for a part's own fields beside its list.
const PART_OVERHEAD: usize = 256;

/// Why an endpoint set cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    #[error("{0} endpoints are over the limit of {most}", most = limits::ENDPOINTS)]
    TooMany(usize),
    #[error("the endpoint set takes {0} bytes, over the limit of {most}: shorten schemas and summaries", most = limits::ENDPOINTS_BYTES)]
    TooLarge(usize),
    #[error("{method} {path} takes {size} bytes, over what fits one frame: shorten its schemas")]
    EndpointTooLarge { method: http::Method, path: String, size: usize },
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
    if endpoints.len() > limits::ENDPOINTS {
        return Err(RegisterError::TooMany(endpoints.len()));
    }
    let room = max_frame - PART_OVERHEAD;
    let mut total = 0;
    let mut parts = vec![Vec::new()];
    let mut filled = 0;
    for endpoint in endpoints {
        let size = crate::wire::encode(&endpoint).len();
        if size > room {
            let (method, path) = (endpoint.method, endpoint.path.to_string());
            return Err(RegisterError::EndpointTooLarge { method, path, size });
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
    let room = max_frame - PART_OVERHEAD;
    let mut parts = vec![Vec::new()];
    let mut filled = 0;
    for mut refusal in refused {
        refusal.reason = crate::frame::bounded_text(refusal.reason);
        let size = refusal.reason.len() + 32;
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
        let result = EndpointsResult { revision, part: part as u32, last: part == last, refused };
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

/// An endpoint set names each id once.
pub(super) fn check_ids(endpoints: &[EndpointDescriptor]) -> Result<(), ProtocolError> {
    let mut seen: HashSet<EndpointId> = HashSet::with_capacity(endpoints.len());
    match endpoints.iter().find(|endpoint| !seen.insert(endpoint.id)) {
        Some(twice) => Err(ProtocolError::new(format!("endpoint id {} stands twice in one set", twice.id))),
        None => Ok(()),
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
    fn an_id_that_stands_twice_is_refused() {
        let mut set = endpoints(3, 0);
        assert!(check_ids(&set).is_ok());
        set[2].id = set[0].id;
        assert!(check_ids(&set).is_err());
    }
}
