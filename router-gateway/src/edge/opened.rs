//! A tunnel between its acceptance and its connection: it travels with the response that opens it. What is done with it is
//! not known here.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::Response;
use router_link::Tunnel;

/// A tunnel that a service has accepted, on its way to the client's connection: an extension of the response.
#[derive(Clone)]
pub struct OpenTunnel(Arc<Mutex<Option<Opened>>>);

/// What there is to be spliced.
pub(super) struct Opened {
    pub(super) tunnel: Tunnel,
    /// Whatever is to last as long as the tunnel does.
    _kept: Box<dyn Any + Send>,
    pub(super) ends_with_client: bool,
}

impl OpenTunnel {
    /// Hands a tunnel over with its response, and with what is to last as long.
    pub fn put_into<B>(response: &mut Response<B>, tunnel: Tunnel, kept: impl Send + 'static) {
        let opened = Opened { tunnel, _kept: Box::new(kept), ends_with_client: false };
        response.extensions_mut().insert(Self(Arc::new(Mutex::new(Some(opened)))));
    }

    /// Whether this response opens a tunnel.
    #[must_use]
    pub fn is_in<B>(response: &Response<B>) -> bool {
        response.extensions().get::<Self>().is_some()
    }

    /// Says of the tunnel in this response that its protocol knows no half-close: a client that has ended its direction
    /// has left.
    pub fn end_with_client<B>(response: &Response<B>) {
        let Some(Self(opened)) = response.extensions().get::<Self>() else { return };
        if let Some(opened) = &mut *opened.lock().unwrap_or_else(PoisonError::into_inner) {
            opened.ends_with_client = true;
        }
    }

    pub(super) fn take<B>(response: &mut Response<B>) -> Option<Opened> {
        let Self(opened) = response.extensions_mut().remove::<Self>()?;
        opened.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for OpenTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenTunnel")
    }
}
