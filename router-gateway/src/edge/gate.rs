//! Gate: whether newcomers are let in now, later, or not any more. It knows nothing of who they are.

use tokio::sync::watch;

/// What those who accept look at; cheap to clone, and all clones are one gate.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<Position>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Open,
    /// Newcomers wait where they are, in the kernel's queue for the most part.
    Held,
    /// For good.
    Shut,
}

impl Gate {
    #[must_use]
    pub fn opened() -> Self {
        Self(watch::Sender::new(Position::Open))
    }

    #[must_use]
    pub fn held() -> Self {
        Self(watch::Sender::new(Position::Held))
    }

    /// Lets newcomers in from now on, unless it has been closed for good.
    pub fn open(&self) {
        self.set(Position::Open);
    }

    /// Lets newcomers wait until it is opened again.
    pub fn hold(&self) {
        self.set(Position::Held);
    }

    /// Lets nobody in any more but who waits already.
    pub fn shut(&self) {
        self.set(Position::Shut);
    }

    fn set(&self, to: Position) {
        self.0.send_if_modified(|position| {
            let changes = *position != to && matches!(*position, Position::Open | Position::Held);
            if changes {
                *position = to;
            }
            changes
        });
    }

    /// For one who accepts. To have it open for a look and shut thereafter, ask [`Keeper::opens`] before each.
    #[must_use]
    pub fn keeper(&self) -> Keeper {
        Keeper(self.0.subscribe())
    }
}

/// One who accepts, and asks the gate.
#[derive(Debug)]
pub struct Keeper(watch::Receiver<Position>);

impl Keeper {
    /// Waits while the gate is held; `false`: it has been closed for good.
    pub async fn opens(&mut self) -> bool {
        loop {
            match *self.0.borrow_and_update() {
                Position::Open => return true,
                Position::Held => {}
                Position::Shut => return false,
            }
            self.changes().await;
        }
    }

    /// Whether newcomers are to wait.
    pub fn is_held(&self) -> bool {
        *self.0.borrow() == Position::Held
    }

    /// Waits until the gate is another than when [`Keeper::opens`] was asked.
    pub async fn changes(&mut self) {
        // Whoever holds the gate ends its keepers before it goes; should it not, nobody is let in any more.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_gate_is_held_and_opened_until_it_is_closed_for_good() {
        let gate = Gate::held();
        let mut keeper = gate.keeper();
        assert_eq!(keeper.opens().now_or_never(), None);
        gate.open();
        assert_eq!(keeper.opens().now_or_never(), Some(true));
        assert_eq!(keeper.changes().now_or_never(), None);
        gate.hold();
        assert_eq!(keeper.changes().now_or_never(), Some(()));
        assert_eq!(keeper.opens().now_or_never(), None);
        gate.shut();
        assert_eq!(keeper.opens().now_or_never(), Some(false));
        gate.open();
        assert_eq!(keeper.opens().now_or_never(), Some(false), "that was for good");
    }
}
