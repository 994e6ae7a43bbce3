//! One link to one gateway, for the life of the service: dial, serve, drain, dial again (SPEC 4, 7).
//!
//! It decides which ends are worth dialling again. It knows nothing of other links but what they share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use router_common::frame::{CloseCode, Hello, PROTOCOL_VERSION};
use router_common::session::lease::Lease;
use router_common::session::{Closed, ClosedBy, Common, ServiceSide, Session, Timers};
use router_link::{Backoff, BoxLink, Driver, Handle};
use tokio_util::sync::CancellationToken;

use crate::error::Chain;
use crate::link_state::{GatewayState, LinkState};
use crate::outage::{SoFar, Telling};
use crate::plan::{GatewayPlan, Identity};
use crate::serve::{Server, ServiceApplication};
use crate::start_error::StartError;

/// How long what is in flight on a link to a gateway that is gone may take.
const GONE_GRACE: Duration = Duration::from_secs(30);

/// One link's place and all that it needs.
pub(crate) struct LinkTask {
    pub(crate) identity: Arc<Identity>,
    pub(crate) gateway: Arc<GatewayPlan>,
    pub(crate) state: Arc<GatewayState>,
    pub(crate) server: Server,
    /// This link's number, from 0.
    pub(crate) number: u16,
    /// The first dialling follows a link of this number that still serves, and waits a moment, so that not all services
    /// of a gateway that leaves come at once.
    pub(crate) is_replacement: bool,
    /// The service drains. What is in flight is answered, unlike at the end of the gateway alone.
    pub(crate) stop: CancellationToken,
}

/// Why a link is not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// To its end: nobody has its number.
    Alone,
    /// To its end, while another link had taken its number already.
    Replaced,
}

/// How one dialling ended.
enum Ended {
    /// Because the service stops, or the gateway is gone.
    Stopped,
    /// By itself, after it worked or before.
    Lost { welcomed: bool },
    /// By itself, after another link had taken its number.
    Replaced,
}

impl LinkTask {
    /// Keeps the link until the service stops, or it is lost and the gateway does not want so many any more.
    ///
    /// # Errors
    /// What ends the whole service.
    pub(crate) async fn run(self) -> Result<Kept, StartError> {
        let (mut backoff, mut seen) = (self.state.backoff(), self.state.reasons.given());
        if self.is_replacement && !self.has_waited(&mut backoff, &mut seen).await {
            return Ok(Kept::Alone);
        }
        loop {
            seen = self.state.reasons.given();
            match self.once().await? {
                Ended::Stopped => return Ok(Kept::Alone),
                Ended::Replaced => return Ok(Kept::Replaced),
                Ended::Lost { welcomed: true } => backoff.reset(),
                Ended::Lost { welcomed: false } => self.state.dialled_in_vain(),
            }
            if self.number >= self.state.links() || !self.has_waited(&mut backoff, &mut seen).await {
                return Ok(Kept::Alone);
            }
        }
    }

    /// Waits before the next dialling; `false`: the service stops.
    async fn has_waited(&self, backoff: &mut Backoff, seen: &mut u64) -> bool {
        loop {
            let wait = backoff.next_wait(self.identity.environment.random_u64());
            tracing::debug!(gateway = %self.state.target, ?wait, "dialling again");
            tokio::select! {
                biased;
                () = self.state.over.cancelled() => return false,
                () = tokio::time::sleep(wait) => return true,
                // Nobody answered because that process was leaving. The next one may be there at once, or is.
                () = self.state.reasons.beyond(seen) => backoff.reset(),
            }
        }
    }

    async fn once(&self) -> Result<Ended, StartError> {
        let connector = self.state.connector();
        let Some(dialled) = self.state.over.run_until_cancelled(connector.connect()).await else {
            return Ok(Ended::Stopped);
        };
        let link = match dialled {
            Ok(link) => link,
            Err(error) => {
                self.tell("no link to the gateway", &Chain(&error));
                return Ok(Ended::Lost { welcomed: false });
            }
        };
        let lease = self.state.lease();
        let link_state = LinkState::new(Arc::clone(&self.state), self.number, Arc::clone(&lease));
        let session = self.session(&link, lease);
        let application = ServiceApplication::new(self.server.clone(), Arc::clone(&link_state));
        let environment = Arc::clone(&self.identity.environment);
        let (mut driver, handle) = Driver::new(link, session, application, environment);
        let closed = tokio::select! {
            biased;
            closed = &mut driver => closed,
            () = self.stop.cancelled() => {
                tokio::select! {
                    biased;
                    closed = &mut driver => closed,
                    () = self.drained(&handle, &link_state) => driver.await,
                }
            }
            () = self.state.over.cancelled() => {
                tokio::select! {
                    biased;
                    closed = &mut driver => closed,
                    () = self.left(&handle, &link_state) => driver.await,
                }
            }
        };
        let outcome = link_state.take_outcome();
        if let Some(error) = outcome.fatal {
            return Err(error);
        }
        if closed.by == ClosedBy::Peer && closed.code == CloseCode::Shutdown && outcome.welcomed {
            self.state.process_ended();
        }
        if self.state.over.is_cancelled() {
            return Ok(Ended::Stopped);
        }
        if outcome.replaced {
            self.judge_replaced(&closed)?;
            return Ok(Ended::Replaced);
        }
        self.judge(&closed)?;
        Ok(Ended::Lost { welcomed: outcome.welcomed })
    }

    fn session(&self, link: &BoxLink, lease: Arc<Lease>) -> Session {
        let LinkTask { identity, gateway, .. } = self;
        let mut limits = identity.limits;
        limits.max_frame = limits.max_frame.min(link.capabilities().max_frame);
        let mut nonce = [0; 32];
        identity.environment.random(&mut nonce);
        let hello = Hello {
            versions: vec![PROTOCOL_VERSION],
            extensions: Vec::new(),
            instance: identity.instance.clone(),
            incarnation: identity.incarnation,
            link: self.number,
            // The first one does not know yet how many there will be.
            links: self.state.links().max(self.number.saturating_add(1)),
            preference: self.state.preference(),
            key_id: gateway.key_id.clone(),
            // Over anything but TLS others could read it, and use it.
            token: gateway.token.clone().filter(|_| link.peer().channel_binding.is_some()),
            nonce,
            limits,
            lease: lease.limit(),
        };
        let common = Common {
            carrier: link.capabilities().carrier(),
            limits,
            timers: Timers::default(),
            budget: Arc::clone(&identity.budget),
            channel_binding: link.peer().channel_binding.clone().unwrap_or_default(),
            incarnation: None,
        };
        let side = ServiceSide { common, hello, secret: gateway.secret.clone(), lease };
        Session::service(side, identity.environment.now())
    }

    /// Asks the gateway to send nothing more, waits for what is in flight as long as the grace lasts, and closes.
    async fn drained(&self, handle: &Handle, link: &LinkState) {
        if handle.is_open() {
            handle.drain();
            if self.server.cut.run_until_cancelled(link.drained.cancelled()).await.is_none() {
                tracing::warn!(gateway = %self.state.target, "the grace is over; what is in flight is cut");
                handle.close(CloseCode::Shutdown, "the service's grace is over");
                return;
            }
        }
        handle.close(CloseCode::Normal, "the service stops");
    }

    /// The gateway is gone, as it says itself or somebody says of it: it may yet want the answers to what it has asked.
    async fn left(&self, handle: &Handle, link: &LinkState) {
        if tokio::time::timeout(GONE_GRACE, self.drained(handle, link)).await.is_err() {
            handle.close(CloseCode::Normal, "the gateway is gone");
        }
    }

    /// Whether an end is one after which there is no sense in dialling again.
    fn judge(&self, closed: &Closed) -> Result<(), StartError> {
        self.judge_replaced(closed)?;
        let gateway = self.state.target.clone();
        match closed.code {
            // At the first contact these are mistakes of the configuration. Later they are the gateway's, and pass.
            CloseCode::UnsupportedVersion
            | CloseCode::Unauthenticated
            | CloseCode::Forbidden
            | CloseCode::IdentityInUse
                if self.state.may_be_misconfigured() =>
            {
                return Err(StartError::NotLetIn { gateway, code: closed.code, text: closed.text.clone() });
            }
            _ => {}
        }
        self.tell("the link to the gateway ended", &format_args!("{}: {}", closed.code, closed.text));
        Ok(())
    }

    /// The same for a link whose number another one has: only that the whole instance was superseded concerns others.
    fn judge_replaced(&self, closed: &Closed) -> Result<(), StartError> {
        if closed.code == CloseCode::Superseded && closed.by == ClosedBy::Peer {
            let (gateway, instance) = (self.state.target.clone(), self.identity.instance.id.clone());
            return Err(StartError::Superseded { gateway, instance });
        }
        Ok(())
    }

    /// Says that the gateway is away, as often as is good to read. It is dialled again in any case.
    fn tell(&self, what: &'static str, why: &dyn fmt::Display) {
        let gateway = &self.state.target;
        let telling = self.state.outage().failed(self.identity.environment.now());
        match telling {
            Telling::First => tracing::warn!(%gateway, error = %why, "{what}; dialling again until there is one"),
            Telling::Again(SoFar { failures, lasting }) => {
                tracing::warn!(%gateway, error = %why, failures, ?lasting, "{what}; still dialling");
            }
            Telling::Quietly(SoFar { failures, lasting }) => {
                tracing::debug!(%gateway, error = %why, failures, ?lasting, "{what}");
            }
        }
    }
}
