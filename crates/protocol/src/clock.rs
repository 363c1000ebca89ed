//! The account clock: what Payments computes, in Rust, for whoever has to know it without asking.
//!
//! An account keeps the number of seconds for which it was funded. A stream accrues its rate times what that clock
//! advanced. Both sides are held to one another by `contracts/test/vectors/clock.json`.

use serde::{Deserialize, Serialize};

use crate::amount::{Amount, Rate, SCALE, Units};

/// An account as Payments stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What is left of its deposits at `settled_at`.
    pub free: Units,
    /// What cannot be withdrawn while its streams are open.
    pub lockup: Units,
    /// The sum of its running streams' rates.
    pub rate: Rate,
    /// The seconds for which it was funded, up to `settled_at`.
    pub clock: u64,
    /// Up to when it is settled (Unix seconds): now, or the second in which it ran dry.
    pub settled_at: u64,
    /// Whether it ran dry. It stays so until it is funded again: a rate that is cut meanwhile must not stretch what was
    /// left of a second over the gap.
    pub dry: bool,
}

/// A stream as Payments stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// What a second costs; zero once closed.
    pub rate: Rate,
    /// For how many seconds of the rate the account stays locked.
    pub lock: u32,
    /// Where it stands.
    pub state: StreamState,
    /// The account's clock when `owed` was last brought up to date.
    pub clock_at: u64,
    /// Accrued and not yet collected.
    pub owed: Units,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamState {
    /// It holds its lockup and does not accrue.
    #[default]
    Reserved,
    /// It accrues.
    Running,
    /// It ended; what it accrued can be collected.
    Closed,
}

/// Why a step was refused; nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The account does not hold what the step needs.
    #[error("the account has {available} units to spend and {needed} are needed")]
    Underfunded {
        /// Units that are needed.
        needed: Units,
        /// Units that are there.
        available: Units,
    },
    /// A dry account is topped up with less than its lockup.
    #[error("the account is dry: a top-up has to restore its lockup, {missing} units are missing")]
    TopUpTooSmall {
        /// Units that are missing.
        missing: Units,
    },
    /// The stream is in another state than the step needs.
    #[error("the stream is {0:?}")]
    WrongState(StreamState),
    /// A number does not fit into 128 bits.
    #[error("the amount is too large")]
    Overflow,
}

impl Account {
    /// When it runs or ran dry; `None` while nothing runs.
    pub fn funded_until(&self) -> Option<u64> {
        let secs = self.free.seconds_of(self.rate)?;
        if self.dry {
            return Some(self.settled_at);
        }
        Some(u64::try_from(secs).map_or(u64::MAX, |secs| self.settled_at.saturating_add(secs)))
    }

    /// Whether it had run dry by `now`.
    pub fn is_dry(&self, now: u64) -> bool {
        self.funded_until().is_some_and(|end| end < now)
    }

    /// Brings the account up to `now`, or up to the second in which it ran dry.
    pub fn settle(&mut self, now: u64) {
        let Some(funded) = self.free.seconds_of(self.rate) else {
            (self.settled_at, self.dry) = (now, false);
            return;
        };
        if self.dry {
            return;
        }
        let elapsed = now.saturating_sub(self.settled_at);
        let secs = u64::try_from(funded).unwrap_or(u64::MAX).min(elapsed);
        self.dry = secs < elapsed;
        // Never more than `free`, as `secs` is at most `free / rate`.
        self.free = self.free - Units(self.rate.0.saturating_mul(u128::from(secs)));
        self.clock += secs;
        self.settled_at += secs;
    }

    /// Adds `amount`. A dry account starts again at `now`: the gap is never paid for.
    ///
    /// # Errors
    /// When a dry account would stay below its lockup.
    pub fn deposit(&mut self, amount: Amount, now: u64) -> Result<(), ClockError> {
        let mut next = *self;
        next.settle(now);
        let units = amount.units().ok_or(ClockError::Overflow)?;
        next.free = Units(next.free.0.checked_add(units.0).ok_or(ClockError::Overflow)?);
        if next.dry {
            let needed = next.lockup.0.max(next.rate.0);
            if next.free.0 < needed {
                return Err(ClockError::TopUpTooSmall { missing: Units(needed - next.free.0) });
            }
            (next.settled_at, next.dry) = (now, false);
        }
        *self = next;
        Ok(())
    }

    /// Takes `amount` out of what is not locked.
    ///
    /// # Errors
    /// When that is less than `amount`.
    pub fn withdraw(&mut self, amount: Amount, now: u64) -> Result<(), ClockError> {
        let mut next = *self;
        next.settle(now);
        let needed = amount.units().ok_or(ClockError::Overflow)?;
        let available = next.free - next.lockup;
        if needed > available {
            return Err(ClockError::Underfunded { needed, available });
        }
        next.free = next.free - needed;
        *self = next;
        Ok(())
    }

    /// Opens a stream, running or reserved.
    ///
    /// # Errors
    /// When the account would not cover its lockup, or is dry.
    pub fn open(
        &mut self,
        rate: Rate,
        lock: u32,
        start: bool,
        now: u64,
    ) -> Result<Stream, ClockError> {
        let mut next = *self;
        next.settle(now);
        next.lockup = sum(next.lockup, lockup(rate, lock)?)?;
        let state = if start { StreamState::Running } else { StreamState::Reserved };
        if start {
            next.rate = Rate(next.rate.0.checked_add(rate.0).ok_or(ClockError::Overflow)?);
        }
        next.require_funded()?;
        *self = next;
        Ok(Stream { rate, lock, state, clock_at: next.clock, owed: Units(0) })
    }

    /// Starts a reserved stream.
    ///
    /// # Errors
    /// When it is not reserved, or the account does not cover its lockup, or is dry.
    pub fn start(&mut self, stream: &mut Stream, now: u64) -> Result<(), ClockError> {
        if stream.state != StreamState::Reserved {
            return Err(ClockError::WrongState(stream.state));
        }
        let mut next = *self;
        next.settle(now);
        next.rate = Rate(next.rate.0.checked_add(stream.rate.0).ok_or(ClockError::Overflow)?);
        next.require_funded()?;
        stream.clock_at = next.clock;
        stream.state = StreamState::Running;
        *self = next;
        Ok(())
    }

    /// Changes a stream's rate and lock from `now` on.
    ///
    /// # Errors
    /// When it is closed, or when it is raised on an account that does not cover it or is dry.
    pub fn set_rate(
        &mut self,
        stream: &mut Stream,
        rate: Rate,
        lock: u32,
        now: u64,
    ) -> Result<(), ClockError> {
        let old = lockup(stream.rate, stream.lock)?;
        let new = lockup(rate, lock)?;
        let (mut next, mut changed) = (*self, *stream);
        next.settle(now);
        changed.accrue(&next)?;
        match stream.state {
            StreamState::Closed => return Err(ClockError::WrongState(stream.state)),
            StreamState::Reserved => (),
            StreamState::Running => {
                let rest = next.rate.0.saturating_sub(stream.rate.0);
                next.rate = Rate(rest.checked_add(rate.0).ok_or(ClockError::Overflow)?);
            }
        }
        next.lockup = sum(next.lockup - old, new)?;
        if rate > stream.rate || new > old {
            next.require_funded()?;
        }
        (changed.rate, changed.lock) = (rate, lock);
        (*self, *stream) = (next, changed);
        Ok(())
    }

    /// Ends a stream; never needs funds.
    ///
    /// # Errors
    /// When it is closed already.
    pub fn close(&mut self, stream: &mut Stream, now: u64) -> Result<(), ClockError> {
        if stream.state == StreamState::Closed {
            return Err(ClockError::WrongState(stream.state));
        }
        self.settle(now);
        stream.accrue(self)?;
        if stream.state == StreamState::Running {
            self.rate = Rate(self.rate.0.saturating_sub(stream.rate.0));
        }
        self.lockup = self.lockup - lockup(stream.rate, stream.lock)?;
        (stream.rate, stream.state) = (Rate(0), StreamState::Closed);
        Ok(())
    }

    /// Takes what a payee can collect out of a stream.
    ///
    /// # Errors
    /// When what is owed does not fit into 128 bits.
    pub fn collect(&mut self, stream: &mut Stream, now: u64) -> Result<Amount, ClockError> {
        self.settle(now);
        stream.accrue(self)?;
        let amount = stream.owed.collectable();
        stream.owed = stream.owed - Units(amount.0 * SCALE);
        Ok(amount)
    }

    fn require_funded(&self) -> Result<(), ClockError> {
        if self.dry || self.free < self.lockup {
            return Err(ClockError::Underfunded { needed: self.lockup, available: self.free });
        }
        Ok(())
    }
}

impl Stream {
    /// Brings `owed` up to the clock of its account, which must be settled.
    fn accrue(&mut self, account: &Account) -> Result<(), ClockError> {
        if self.state == StreamState::Running {
            let secs = account.clock.saturating_sub(self.clock_at);
            let earned = self.rate.times(secs).ok_or(ClockError::Overflow)?;
            self.owed = sum(self.owed, earned)?;
            self.clock_at = account.clock;
        }
        Ok(())
    }
}

fn lockup(rate: Rate, lock: u32) -> Result<Units, ClockError> {
    rate.times(u64::from(lock)).ok_or(ClockError::Overflow)
}

fn sum(a: Units, b: Units) -> Result<Units, ClockError> {
    a.0.checked_add(b.0).map(Units).ok_or(ClockError::Overflow)
}
