//! Money: into an account, out of it, and what Leases may spend of it.

use alloy::primitives::{Address, B256, U256, aliases::U40};
use anyhow::{Context as _, ensure};
use chain::abi::{Erc20, IPayments, Leases, Payments};
use protocol::amount::{Amount, Rate, SCALE, Units};

use crate::{
    account::AccountName,
    output,
    progress::{Progress, Step},
    session::Session,
};

/// How long a new lease has to be paid for, beyond its lock, for a deploy to be worth it.
const LEAST_RUN: u64 = 3_600;

/// For how many seconds of what runs is left behind where all is withdrawn.
const SLACK: u64 = 60;

/// For how long Leases may open and raise leases before it has to be allowed anew.
pub(crate) const ALLOWANCE: u64 = 30 * 86_400;

/// An account as it is, and whether it is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Funds {
    /// As Payments has it.
    pub(crate) account: IPayments::AccountView,
    /// The chain's time.
    pub(crate) now: u64,
}

/// What a lease will take of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Its rate.
    pub(crate) rate: Rate,
    /// Its lock.
    pub(crate) lock: u32,
    /// The rate and the lock that it has now; zero for a new one.
    pub(crate) before: (Rate, u32),
}

impl Funds {
    /// Reads an account.
    pub(crate) async fn read(session: &Session, account: B256) -> anyhow::Result<Self> {
        let account = session.chain().payments().account(account).call().await?;
        Ok(Self { account, now: session.chain().head().await?.timestamp })
    }

    /// What is not locked.
    pub(crate) fn spendable(&self) -> Units {
        Units(self.account.free) - Units(self.account.lockup)
    }

    /// What has to be added for `load`: for its lock, and for everything to run for a while.
    pub(crate) fn missing(&self, load: &Load) -> Option<Amount> {
        let product = |rate: Rate, secs: u64| rate.0.checked_mul(u128::from(secs));
        let (rate_before, lock_before) = load.before;
        let lockup = product(load.rate, load.lock.into())?;
        let lockup_before = product(rate_before, lock_before.into())?;
        // To spend less is always possible.
        if load.rate <= rate_before && lockup <= lockup_before {
            return Some(Amount(0));
        }
        let lockup = self.account.lockup.checked_add(lockup)?.saturating_sub(lockup_before);
        let rate = self.account.rate.checked_add(load.rate.0)?.saturating_sub(rate_before.0);
        let needed = lockup.checked_add(product(Rate(rate), LEAST_RUN)?)?;
        Some(Amount(needed.saturating_sub(self.account.free).div_ceil(SCALE)))
    }

    /// What has to be added to an account that ran dry, for its locks and for what runs to go on for a while.
    pub(crate) fn dry_missing(&self) -> Option<Amount> {
        if !self.is_dry() {
            return None;
        }
        let hour = self.account.rate.saturating_mul(LEAST_RUN.into());
        let needed = self.account.lockup.saturating_add(hour);
        Some(Amount(needed.saturating_sub(self.account.free).div_ceil(SCALE)))
    }

    fn is_dry(&self) -> bool {
        self.account.rate != 0 && self.account.fundedUntil.to::<u64>() < self.now
    }
}

/// The approval for `secs` seconds that an operator needs for `load`, if the one it has is not enough. What it has is kept.
pub(crate) fn approval(
    current: &IPayments::Approval,
    load: &Load,
    now: u64,
    secs: u64,
) -> Option<IPayments::Approval> {
    let used = current.rateUsed.saturating_add(load.rate.0).saturating_sub(load.before.0.0);
    // A quote holds for minutes; that much has to be left.
    let valid = current.expiry.to::<u64>() > now.saturating_add(600);
    let enough = valid && current.rateLimit >= used && current.maxLock >= load.lock;
    if enough {
        return None;
    }
    // What ran out is not brought back beyond what is needed.
    let kept = if valid { current.clone() } else { IPayments::Approval::default() };
    Some(IPayments::Approval {
        rateLimit: kept.rateLimit.max(used),
        rateUsed: current.rateUsed,
        payLimit: kept.payLimit,
        maxLock: kept.maxLock.max(load.lock),
        expiry: kept.expiry.max(U40::from(now.saturating_add(secs))),
    })
}

/// Makes sure, before anything is done, that the account can carry `load` once `fund` is in it.
pub(crate) async fn require(
    session: &Session,
    account: &AccountName,
    id: B256,
    load: &Load,
    fund: Option<Amount>,
) -> anyhow::Result<()> {
    let funds = Funds::read(session, id).await?;
    let missing = funds.missing(load).context("the price does not fit into 128 bits")?;
    let fund = fund.unwrap_or_default();
    if fund.0 > 0 {
        let held = held(session).await?;
        ensure!(
            held >= fund,
            "wallet {} has {} and {} were to be put into the account",
            session.wallet(),
            session.show(held),
            session.show(fund)
        );
    }
    ensure!(
        fund >= missing,
        "account {account} cannot pay for this: {} more are needed, for the lock of {} and for an hour of running; \
         run `roadstead fund {3}{2}`, or say --fund {3}",
        session.show(Amount(missing.0 - fund.0)),
        output::span(load.lock.into()),
        account.option(),
        generous(missing).display(&session.token),
    );
    Ok(())
}

/// Refuses to change a lease of an account that ran dry, unless `fund` brings it back.
pub(crate) async fn require_afloat(
    session: &Session,
    account: &AccountName,
    id: B256,
    fund: Option<Amount>,
) -> anyhow::Result<()> {
    let missing = Funds::read(session, id).await?.dry_missing().unwrap_or_default();
    ensure!(
        fund.unwrap_or_default() >= missing,
        "account {account} ran dry, and its leases cannot be changed before it is topped up; \
         run `roadstead fund {1}{0}`, or say --fund {1}",
        account.option(),
        generous(missing).display(&session.token),
    );
    Ok(())
}

/// Two digits of an amount, rounded up: a little more than is needed, since time passes until it is there.
fn generous(amount: Amount) -> Amount {
    let digits = amount.0.checked_ilog10().unwrap_or_default();
    let step = 10_u128.pow(digits.saturating_sub(1));
    Amount(amount.0.div_ceil(step).saturating_mul(step))
}

/// What the wallet holds outside of its accounts.
async fn held(session: &Session) -> anyhow::Result<Amount> {
    let held = session.chain().erc20().balanceOf(session.wallet()).call().await?;
    Ok(Amount(u128::try_from(held).unwrap_or(u128::MAX)))
}

/// Puts `amount` into an account of the wallet's, which comes to be if it was not there.
pub(crate) async fn deposit(
    session: &Session,
    salt: B256,
    amount: Amount,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let payments = session.chain().deployment().payments;
    let (owner, value) = (session.wallet(), U256::from(amount.0));
    allow_tokens(session, payments, "Payments", amount, progress).await?;
    let deposit = Payments::depositCall { owner, salt, amount: value };
    let what = format!("puts {} into the account", session.show(amount));
    let done = session.send(payments, &deposit, &what, progress).await;
    done.context("nothing was put into the account")?;
    Ok(())
}

/// Lets `spender`, a contract called `name`, take `amount` of the wallet's tokens, unless it may already.
pub(crate) async fn allow_tokens(
    session: &Session,
    spender: Address,
    name: &str,
    amount: Amount,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let chain = session.chain();
    let amount = U256::from(amount.0);
    if chain.erc20().allowance(session.wallet(), spender).call().await? >= amount {
        return Ok(());
    }
    let approve = Erc20::approveCall { spender, amount };
    let what = format!("lets {name} take the tokens");
    let done = session.send(chain.deployment().token, &approve, &what, progress).await;
    done.with_context(|| format!("{name} could not be allowed"))?;
    Ok(())
}

/// Takes `amount`, or all that is not locked, out of an account of the wallet's.
pub(crate) async fn withdraw(
    session: &Session,
    account: B256,
    amount: Option<Amount>,
    progress: &dyn Progress,
) -> anyhow::Result<Amount> {
    let funds = Funds::read(session, account).await?;
    let most = funds.spendable().collectable();
    // All of it would be too much in the next second, where something runs.
    let meanwhile = funds.account.rate.saturating_mul(SLACK.into()).div_ceil(SCALE);
    let amount = amount.unwrap_or(Amount(most.0.saturating_sub(meanwhile)));
    ensure!(
        amount <= most && most.0 > 0,
        "{} can be withdrawn at the moment; {} are locked as long as leases are open",
        session.show(most),
        session.show(Amount(funds.account.lockup.div_ceil(SCALE)))
    );
    ensure!(amount.0 > 0, "nothing is to be withdrawn; name an amount such as 12.5, or all");
    if let Some(left) = left(&funds, amount) {
        progress.step(&Step::Note(format!(
            "leases of this account are open, and {left} of runway is left for them; then they pause, and are closed \
             unless you fund it again"
        )));
    }
    progress.step(&Step::Sending(format!("takes {} out", session.show(amount))));
    let withdraw =
        Payments::withdrawCall { id: account, to: session.wallet(), amount: U256::from(amount.0) };
    let payments = session.chain().deployment().payments;
    let done = session.sender.send(payments, &withdraw).await;
    done.map_err(|err| session.explain(err)).context("nothing was taken out")?;
    Ok(amount)
}

/// For how long an account lasts once `amount` is out of it, its locks included; nothing where nothing runs.
fn left(funds: &Funds, amount: Amount) -> Option<String> {
    let rest = Units(funds.account.free) - amount.units()?;
    let secs = rest.seconds_of(Rate(funds.account.rate))?;
    Some(output::span(u64::try_from(secs).unwrap_or(u64::MAX)))
}

/// Lets Leases open or change a lease with `load`, and no more, unless it may already.
pub(crate) async fn allow(
    session: &Session,
    account: B256,
    load: &Load,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let leases = session.chain().deployment().leases;
    allow_operator(session, account, (leases, "Leases"), load, ALLOWANCE, progress).await
}

/// Lets a contract open or change streams out of an account for the next `secs` seconds, unless it may already.
pub(crate) async fn allow_operator(
    session: &Session,
    account: B256,
    (operator, name): (Address, &str),
    load: &Load,
    secs: u64,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let chain = session.chain();
    let current = chain.payments().approval(account, operator).call().await?;
    let Some(wanted) = approval(&current, load, chain.head().await?.timestamp, secs) else {
        return Ok(());
    };
    let approve = Payments::approveCall {
        id: account,
        operator,
        rateLimit: wanted.rateLimit,
        payLimit: wanted.payLimit,
        maxLock: wanted.maxLock,
        expiry: wanted.expiry,
    };
    let what = format!("lets {name} spend this much of the account");
    let done = session.send(chain.deployment().payments, &approve, &what, progress).await;
    done.with_context(|| format!("{name} could not be allowed"))?;
    Ok(())
}

/// Lets a contract open, amend and close leases for an account, unless it may already.
pub(crate) async fn allow_agent(
    session: &Session,
    account: B256,
    (agent, name): (Address, &str),
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let chain = session.chain();
    if chain.leases().isAgent(account, agent).call().await? {
        return Ok(());
    }
    let call = Leases::setAgentCall { account, agent, allowed: true };
    let what = format!("lets {name} open leases for the account");
    let done = session.send(chain.deployment().leases, &call, &what, progress).await;
    done.with_context(|| format!("{name} could not be allowed"))?;
    Ok(())
}

/// How an account stands, in words: what it holds and how long that lasts.
pub(crate) fn standing(session: &Session, funds: &Funds) -> String {
    let free = session.show(Units(funds.account.free).collectable());
    match funds.is_dry() {
        true => format!("{free}, dry: leases are paused, then closed"),
        false => format!("{free}, {}", output::runway(funds.account.fundedUntil, funds.now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u128 = SCALE;

    fn funds(free: u128, lockup: u128, rate: u128) -> Funds {
        let account = IPayments::AccountView { free, lockup, rate, ..Default::default() };
        Funds { account, now: 1_000 }
    }

    fn load(rate: u128, lock: u32) -> Load {
        Load { rate: Rate(rate), lock, before: (Rate(0), 0) }
    }

    #[test]
    fn what_is_missing_covers_the_lock_and_an_hour() {
        let check = |funds: Funds, load: Load, wanted: u128| {
            assert_eq!(funds.missing(&load), Some(Amount(wanted)));
        };
        check(funds(0, 0, 0), load(UNIT, 100), 3_700);
        check(funds(3_700 * UNIT, 0, 0), load(UNIT, 100), 0);
        check(funds(3_700 * UNIT - 1, 0, 0), load(UNIT, 100), 1);
        check(funds(1_000 * UNIT, 400 * UNIT, UNIT), load(UNIT, 100), 6_700);
        let raised = Load { before: (Rate(UNIT), 100), ..load(2 * UNIT, 100) };
        check(funds(0, 100 * UNIT, UNIT), raised, 7_400);
        let lowered = Load { before: (Rate(2 * UNIT), 100), ..load(UNIT, 100) };
        check(funds(0, 200 * UNIT, 2 * UNIT), lowered, 0);
        assert_eq!(funds(0, 0, 0).missing(&load(u128::MAX, 100)), None);
    }

    #[test]
    fn a_dry_account_needs_its_locks_and_an_hour() {
        let account = |free: u128, funded_until: u64| Funds {
            account: IPayments::AccountView {
                free,
                lockup: 100 * UNIT,
                rate: UNIT,
                fundedUntil: U40::from(funded_until),
                ..Default::default()
            },
            now: 1_000,
        };
        assert_eq!(account(100 * UNIT, 1_001).dry_missing(), None);
        assert_eq!(account(100 * UNIT, 999).dry_missing(), Some(Amount(3_600)));
        assert_eq!(account(40 * UNIT, 999).dry_missing(), Some(Amount(3_660)));
    }

    #[test]
    fn what_a_withdrawal_leaves_is_told_where_something_runs() {
        let check = |funds: Funds, amount: u128, wanted: Option<&str>| {
            assert_eq!(left(&funds, Amount(amount)).as_deref(), wanted);
        };
        check(funds(1_000 * UNIT, 400 * UNIT, UNIT), 600, Some("6m 40s"));
        check(funds(1_000 * UNIT, 400 * UNIT, UNIT), 500, Some("8m 20s"));
        check(funds(1_000 * UNIT, 0, 0), 1_000, None);
    }

    #[test]
    fn suggestions_are_round_and_enough() {
        let check = |amount: u128, wanted| assert_eq!(generous(Amount(amount)), Amount(wanted));
        check(0, 0);
        check(7, 7);
        check(99, 99);
        check(3_143, 3_200);
        check(991, 1_000);
    }

    #[test]
    fn leases_gets_what_is_needed_and_keeps_what_it_has() {
        let now = 1_000;
        let later = |secs: u64| U40::from(now + secs);
        let none = IPayments::Approval::default();
        let first = approval(&none, &load(5, 60), now, ALLOWANCE).unwrap();
        assert_eq!((first.rateLimit, first.maxLock, first.payLimit), (5, 60, 0));
        assert_eq!(first.expiry, later(ALLOWANCE));

        let wide = IPayments::Approval {
            rateLimit: 100,
            rateUsed: 50,
            payLimit: 7,
            maxLock: 600,
            expiry: U40::MAX,
        };
        assert_eq!(approval(&wide, &load(50, 600), now, ALLOWANCE), None);
        let raised = approval(&wide, &load(51, 60), now, ALLOWANCE).unwrap();
        let wanted = IPayments::Approval { rateLimit: 101, ..wide.clone() };
        assert_eq!(raised, wanted);
        let longer = approval(&wide, &load(1, 601), now, ALLOWANCE).unwrap();
        assert_eq!(longer, IPayments::Approval { maxLock: 601, ..wide.clone() });

        let over = IPayments::Approval { expiry: later(0), ..wide.clone() };
        let renewed = approval(&over, &load(1, 60), now, ALLOWANCE).unwrap();
        assert_eq!((renewed.rateLimit, renewed.payLimit, renewed.maxLock), (51, 0, 60));

        let lowered = Load { before: (Rate(20), 60), ..load(10, 60) };
        assert_eq!(approval(&wide, &lowered, now, ALLOWANCE), None);
    }
}
