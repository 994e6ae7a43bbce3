//! What the registry needs of a link.

use router_common::frame::{CloseCode, RefusedEndpoint};
use router_link::Handle;

/// What the registry needs of a link. What takes a lock of its own is called without
/// the registry's.
pub trait LinkHandle: Clone + Send + Sync + 'static {
    /// Asks the service to open nothing more on this link.
    fn drain(&self);
    /// Ends the link.
    fn close(&self, code: CloseCode, text: &str);
    /// Tells what became of a revision of the instance's endpoints.
    fn endpoints_result(&self, revision: u64, refused: Vec<RefusedEndpoint>);
    /// Whether nothing is in flight on it, in either direction.
    fn is_idle(&self) -> bool;
    /// Transport and address, for lists; takes no lock.
    fn peer(&self) -> String;
    /// The transport's name; takes no lock.
    fn transport(&self) -> &'static str;
    /// Whether it carries bodies of any length, or small messages only; takes no lock.
    fn is_streaming(&self) -> bool;
}

impl LinkHandle for Handle {
    fn drain(&self) {
        Self::drain(self);
    }

    fn close(&self, code: CloseCode, text: &str) {
        Self::close(self, code, text);
    }

    fn endpoints_result(&self, revision: u64, refused: Vec<RefusedEndpoint>) {
        Self::endpoints_result(self, revision, refused);
    }

    fn is_idle(&self) -> bool {
        self.streams() == (0, 0)
    }

    fn is_streaming(&self) -> bool {
        Self::is_streaming(self)
    }

    fn peer(&self) -> String {
        Self::peer(self).to_string()
    }

    fn transport(&self) -> &'static str {
        Self::peer(self).transport
    }
}
