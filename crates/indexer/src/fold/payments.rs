//! Payments: the account clock does the arithmetic, as the contract does.

use alloy::primitives::{Address, B256, U256};
use chain::abi::Payments::PaymentsEvents;
use protocol::{
    amount::{Amount, Rate, Units},
    clock::{self, ClockError},
};
use store::{
    account::{self, Account},
    approval::{self, Approval},
    event::Subject,
    stream::{self, State as StreamState, Stream},
};

use super::{At, State, Why, amount};

/// Who opened a stream, and under which number of its own.
pub(super) fn operator_of(id: U256) -> (Address, u128) {
    let bytes = id.to_be_bytes::<32>();
    let number = id & U256::from(u128::MAX >> 32);
    (Address::from_slice(&bytes[..20]), number.to())
}

/// The lease that a locker's or operator's own number stands for.
pub(super) fn lease_of(operator: Address, number: u128, at: At) -> Option<u64> {
    if operator == at.leases { u64::try_from(number).ok() } else { None }
}

fn account_key(id: B256) -> account::Key {
    account::Key { id }
}

fn stream_key(id: U256) -> stream::Key {
    stream::Key { id: id.into() }
}

pub(super) fn want(state: &mut State, event: &PaymentsEvents) {
    match event {
        PaymentsEvents::Deposited(e) => state.account.want(account_key(e.account)),
        PaymentsEvents::Withdrawn(e) => state.account.want(account_key(e.account)),
        PaymentsEvents::Approved(e) => {
            state.account.want(account_key(e.account));
            state.approval.want(approval::Key { account: e.account, operator: e.operator });
        }
        PaymentsEvents::StreamOpened(e) => {
            let (operator, _) = operator_of(e.id);
            state.stream.want(stream_key(e.id));
            state.account.want(account_key(e.account));
            state.approval.want(approval::Key { account: e.account, operator });
        }
        PaymentsEvents::StreamStarted(e) => state.stream.want(stream_key(e.id)),
        PaymentsEvents::RateSet(e) => state.stream.want(stream_key(e.id)),
        PaymentsEvents::StreamClosed(e) => state.stream.want(stream_key(e.id)),
        PaymentsEvents::StreamCut(e) => state.stream.want(stream_key(e.id)),
        PaymentsEvents::Collected(e) => state.stream.want(stream_key(e.id)),
        PaymentsEvents::Paid(e) => {
            state.account.want(account_key(e.account));
            state.approval.want(approval::Key { account: e.account, operator: e.operator });
        }
    }
}

/// A stream's account and approval: the stream names them, unless it is opened in the same batch, which names them too.
pub(super) fn want_more(state: &mut State, event: &PaymentsEvents) {
    let id = match event {
        PaymentsEvents::StreamStarted(e) => e.id,
        PaymentsEvents::RateSet(e) => e.id,
        PaymentsEvents::StreamClosed(e) => e.id,
        PaymentsEvents::StreamCut(e) => e.id,
        PaymentsEvents::Collected(e) => e.id,
        PaymentsEvents::Deposited(_)
        | PaymentsEvents::Withdrawn(_)
        | PaymentsEvents::Approved(_)
        | PaymentsEvents::StreamOpened(_)
        | PaymentsEvents::Paid(_) => return,
    };
    if let Some(stream) = state.stream.peek(&stream_key(id)) {
        let (account, operator) = (stream.account, stream.operator);
        state.account.want(account_key(account));
        state.approval.want(approval::Key { account, operator });
    }
}

pub(super) fn apply(state: &mut State, event: &PaymentsEvents, at: At) -> Result<Subject, Why> {
    let of = |account: B256| Subject { account: Some(account), ..Subject::default() };
    match event {
        PaymentsEvents::Deposited(e) => {
            let paid = amount(e.amount)?;
            let account = state.account.edit(account_key(e.account))?;
            let account = account.get_or_insert_with(|| Account {
                id: e.account,
                owner: e.owner,
                salt: e.salt,
                free: Units(0),
                lockup: Units(0),
                rate: Rate(0),
                clock: 0,
                settled_at: at.time,
                dry: false,
                resumed_at: 0,
            });
            run(account, at.time, |clock| clock.deposit(paid, at.time))?;
            Ok(of(e.account))
        }
        PaymentsEvents::Withdrawn(e) => {
            let paid = amount(e.amount)?;
            run(account_of(state, e.account)?, at.time, |clock| clock.withdraw(paid, at.time))?;
            Ok(of(e.account))
        }
        PaymentsEvents::Approved(e) => {
            account_of(state, e.account)?;
            let approval = approval_of(state, e.account, e.operator)?;
            approval.rate_limit = Rate(e.rateLimit);
            approval.pay_limit = Units(e.payLimit);
            approval.max_lock = e.maxLock;
            approval.expiry = e.expiry.to();
            Ok(of(e.account))
        }
        PaymentsEvents::StreamOpened(e) => {
            let (operator, number) = operator_of(e.id);
            if state.stream.edit(stream_key(e.id))?.is_some() {
                return Err(Why::Exists(format!("stream {:#x}", e.id)));
            }
            let account = account_of(state, e.account)?;
            let owner = account.owner;
            let opened = run(account, at.time, |clock| {
                clock.open(Rate(e.rate), e.lock, e.started, at.time)
            })?;
            let mut stream = Stream {
                id: e.id.into(),
                account: e.account,
                operator,
                payee: e.payee,
                rate: Rate(0),
                lock: 0,
                state: StreamState::Reserved,
                clock_at: 0,
                owed: Units(0),
                collected: Amount(0),
                opened_at: at.time,
            };
            keep(&mut stream, &opened);
            *state.stream.edit(stream_key(e.id))? = Some(stream);
            if operator != owner {
                used(state, e.account, operator, Rate(0), Rate(e.rate))?;
            }
            Ok(Subject {
                account: Some(e.account),
                provider: lease_of(operator, number, at).map(|_lease| e.payee),
                lease: lease_of(operator, number, at),
            })
        }
        PaymentsEvents::StreamStarted(e) => {
            on_stream(state, e.id, at, |account, stream| account.start(stream, at.time))
        }
        PaymentsEvents::RateSet(e) => on_stream(state, e.id, at, |account, stream| {
            account.set_rate(stream, Rate(e.rate), e.lock, at.time)
        }),
        PaymentsEvents::StreamClosed(e) => {
            on_stream(state, e.id, at, |account, stream| account.close(stream, at.time))
        }
        PaymentsEvents::StreamCut(e) => {
            let back = Units(e.back);
            let mut went = Ok(());
            let subject = on_stream(state, e.id, at, |account, stream| {
                account.close(stream, at.time)?;
                went = give_back(account, stream, back);
                Ok(())
            })?;
            went?;
            Ok(subject)
        }
        PaymentsEvents::Collected(e) => {
            let paid = amount(e.amount)?;
            let mut owed = Amount(0);
            let subject = on_stream(state, e.id, at, |account, stream| {
                owed = account.collect(stream, at.time)?;
                Ok(())
            })?;
            if owed != paid {
                return Err(Why::Collected { paid, owed });
            }
            let stream = stream_of(state, e.id)?;
            super::add(&mut stream.collected, paid)?;
            Ok(subject)
        }
        PaymentsEvents::Paid(e) => {
            let paid = amount(e.amount)?;
            let account = account_of(state, e.account)?;
            let owner = account.owner;
            run(account, at.time, |clock| clock.withdraw(paid, at.time))?;
            if e.operator != owner {
                let approval = approval_of(state, e.account, e.operator)?;
                let units = paid.units().ok_or(Why::Amount(e.amount))?;
                let left = approval.pay_limit.0.checked_sub(units.0).ok_or(Why::TooMuch)?;
                approval.pay_limit = Units(left);
            }
            Ok(of(e.account))
        }
    }
}

/// A part of what a stream accrued goes back to its account.
fn give_back(
    account: &mut clock::Account,
    stream: &mut clock::Stream,
    back: Units,
) -> Result<(), Why> {
    stream.owed = Units(stream.owed.0.checked_sub(back.0).ok_or(Why::TooMuch)?);
    account.free = Units(account.free.0.checked_add(back.0).ok_or(Why::TooMuch)?);
    Ok(())
}

/// Does something to a stream and its account, and brings the operator's approval along.
fn on_stream(
    state: &mut State,
    id: U256,
    at: At,
    step: impl FnOnce(&mut clock::Account, &mut clock::Stream) -> Result<(), ClockError>,
) -> Result<Subject, Why> {
    let stream = stream_of(state, id)?;
    let (account_id, operator, payee, before) =
        (stream.account, stream.operator, stream.payee, stream.rate);
    let mut changed = stream::clock_of(stream);
    let account = account_of(state, account_id)?;
    let owner = account.owner;
    run(account, at.time, |clock| step(clock, &mut changed))?;
    keep(stream_of(state, id)?, &changed);
    if operator != owner && changed.rate != before {
        used(state, account_id, operator, before, changed.rate)?;
    }
    let lease = lease_of(operator, operator_of(id).1, at);
    let provider = lease.map(|_lease| payee);
    Ok(Subject { account: Some(account_id), provider, lease })
}

/// Does something to an account by its clock.
fn run<T>(
    account: &mut Account,
    now: u64,
    step: impl FnOnce(&mut clock::Account) -> Result<T, ClockError>,
) -> Result<T, Why> {
    let mut clock = account::clock_of(account);
    let was_dry = clock.is_dry(now);
    let done = step(&mut clock)?;
    if was_dry && !clock.is_dry(now) {
        account.resumed_at = now;
    }
    account.free = clock.free;
    account.lockup = clock.lockup;
    account.rate = clock.rate;
    account.clock = clock.clock;
    account.settled_at = clock.settled_at;
    account.dry = clock.dry;
    Ok(done)
}

fn keep(stream: &mut Stream, changed: &clock::Stream) {
    stream.rate = changed.rate;
    stream.lock = changed.lock;
    stream.state = match changed.state {
        clock::StreamState::Reserved => StreamState::Reserved,
        clock::StreamState::Running => StreamState::Running,
        clock::StreamState::Closed => StreamState::Closed,
    };
    stream.clock_at = changed.clock_at;
    stream.owed = changed.owed;
}

fn account_of(state: &mut State, id: B256) -> Result<&mut Account, Why> {
    let account = state.account.edit(account_key(id))?;
    account.as_mut().ok_or_else(|| Why::Missing(format!("account {id}")))
}

fn stream_of(state: &mut State, id: U256) -> Result<&mut Stream, Why> {
    let stream = state.stream.edit(stream_key(id))?;
    stream.as_mut().ok_or_else(|| Why::Missing(format!("stream {id:#x}")))
}

/// What an operator may do; nothing until the owner says something else.
fn approval_of(state: &mut State, account: B256, operator: Address) -> Result<&mut Approval, Why> {
    let approval = state.approval.edit(approval::Key { account, operator })?;
    Ok(approval.get_or_insert_with(|| Approval {
        account,
        operator,
        rate_limit: Rate(0),
        rate_used: Rate(0),
        pay_limit: Units(0),
        max_lock: 0,
        expiry: 0,
    }))
}

/// An operator's streams changed their total rate.
fn used(
    state: &mut State,
    account: B256,
    operator: Address,
    old: Rate,
    new: Rate,
) -> Result<(), Why> {
    let approval = approval_of(state, account, operator)?;
    let rest = approval.rate_used.0.checked_sub(old.0).ok_or(Why::TooMuch)?;
    approval.rate_used = Rate(rest.checked_add(new.0).ok_or(Why::TooMuch)?);
    Ok(())
}
