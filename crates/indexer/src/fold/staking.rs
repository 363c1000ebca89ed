//! Staking: sums of token base units.

use alloy::primitives::{Address, U256};
use chain::abi::Staking::StakingEvents;
use protocol::amount::Amount;
use store::{
    bond::{self, Bond},
    bond_lock::{self, BondLock},
    claim::{self, Claim},
    event::Subject,
    locker::{self, Locker},
};

use super::{At, State, Why, add, amount, payments::lease_of, take};

pub(super) fn want(state: &mut State, event: &StakingEvents) {
    let mut lock = |bonder: Address, locker: Address, number: u128| {
        state.bond.want(bond::Key { bonder });
        state.bond_lock.want(bond_lock::Key { bonder, locker, ref_: number });
    };
    match event {
        StakingEvents::Bonded(e) => state.bond.want(bond::Key { bonder: e.bonder }),
        StakingEvents::UnbondRequested(e) => state.bond.want(bond::Key { bonder: e.bonder }),
        StakingEvents::UnbondCancelled(e) => state.bond.want(bond::Key { bonder: e.bonder }),
        StakingEvents::Unbonded(e) => state.bond.want(bond::Key { bonder: e.bonder }),
        StakingEvents::LockerSet(e) => {
            state.locker.want(locker::Key { bonder: e.bonder, locker: e.locker });
        }
        StakingEvents::Locked(e) => lock(e.bonder, e.locker, e.r#ref.to()),
        StakingEvents::ReleaseSet(e) => lock(e.bonder, e.locker, e.r#ref.to()),
        StakingEvents::Lowered(e) => lock(e.bonder, e.locker, e.r#ref.to()),
        StakingEvents::Unlocked(e) => lock(e.bonder, e.locker, e.r#ref.to()),
        StakingEvents::Slashed(e) => {
            lock(e.bonder, e.locker, e.r#ref.to());
            for beneficiary in [e.beneficiary, e.rewarded] {
                state.claim.want(claim::Key { beneficiary });
            }
        }
        StakingEvents::Claimed(e) => {
            state.claim.want(claim::Key { beneficiary: e.beneficiary });
        }
    }
}

pub(super) fn apply(state: &mut State, event: &StakingEvents, at: At) -> Result<Subject, Why> {
    let of = |bonder: Address| Subject { provider: Some(bonder), ..Subject::default() };
    let about = |bonder: Address, locker: Address, number: u128| Subject {
        provider: Some(bonder),
        lease: lease_of(locker, number, at),
        account: None,
    };
    match event {
        StakingEvents::Bonded(e) => {
            add(&mut bond_of(state, e.bonder)?.bonded, amount(e.amount)?)?;
            Ok(of(e.bonder))
        }
        StakingEvents::UnbondRequested(e) => {
            let amount = amount(e.amount)?;
            let bond = bond_of(state, e.bonder)?;
            take(&mut bond.bonded, amount)?;
            add(&mut bond.unbonding, amount)?;
            bond.withdrawable_at = e.withdrawableAt.to();
            Ok(of(e.bonder))
        }
        StakingEvents::UnbondCancelled(e) => {
            let amount = amount(e.amount)?;
            let bond = bond_of(state, e.bonder)?;
            take(&mut bond.unbonding, amount)?;
            add(&mut bond.bonded, amount)?;
            Ok(of(e.bonder))
        }
        StakingEvents::Unbonded(e) => {
            take(&mut bond_of(state, e.bonder)?.unbonding, amount(e.amount)?)?;
            Ok(of(e.bonder))
        }
        StakingEvents::LockerSet(e) => {
            let (bonder, locker) = (e.bonder, e.locker);
            *state.locker.edit(locker::Key { bonder, locker })? =
                Some(Locker { bonder, locker, allowed: e.allowed });
            Ok(of(e.bonder))
        }
        StakingEvents::Locked(e) => {
            let amount = amount(e.amount)?;
            add(&mut bond_of(state, e.bonder)?.locked, amount)?;
            let key = bond_lock::Key { bonder: e.bonder, locker: e.locker, ref_: e.r#ref.to() };
            let lock = state.bond_lock.edit(key)?.get_or_insert_with(|| BondLock {
                bonder: key.bonder,
                locker: key.locker,
                ref_: key.ref_,
                amount: Amount(0),
                release_at: None,
            });
            add(&mut lock.amount, amount)?;
            Ok(about(e.bonder, e.locker, e.r#ref.to()))
        }
        StakingEvents::ReleaseSet(e) => {
            let lock = lock_of(state, e.bonder, e.locker, e.r#ref.to())?;
            lock.release_at = Some(e.releaseAt.to());
            Ok(about(e.bonder, e.locker, e.r#ref.to()))
        }
        StakingEvents::Lowered(e) => {
            let amount = amount(e.amount)?;
            take(&mut bond_of(state, e.bonder)?.locked, amount)?;
            take(&mut lock_of(state, e.bonder, e.locker, e.r#ref.to())?.amount, amount)?;
            Ok(about(e.bonder, e.locker, e.r#ref.to()))
        }
        StakingEvents::Unlocked(e) => {
            let amount = amount(e.amount)?;
            take(&mut bond_of(state, e.bonder)?.locked, amount)?;
            let lock = lock_of(state, e.bonder, e.locker, e.r#ref.to())?;
            take(&mut lock.amount, amount)?;
            lock.release_at = Some(at.time);
            Ok(about(e.bonder, e.locker, e.r#ref.to()))
        }
        StakingEvents::Slashed(e) => {
            let amount = amount(e.amount)?;
            let bond = bond_of(state, e.bonder)?;
            take(&mut bond.bonded, amount)?;
            take(&mut bond.locked, amount)?;
            add(&mut bond.slashed, amount)?;
            take(&mut lock_of(state, e.bonder, e.locker, e.r#ref.to())?.amount, amount)?;
            for (beneficiary, share) in [(e.beneficiary, e.paid), (e.rewarded, e.reward)] {
                if share != U256::ZERO {
                    add(&mut claim_of(state, beneficiary)?.amount, super::amount(share)?)?;
                }
            }
            Ok(about(e.bonder, e.locker, e.r#ref.to()))
        }
        StakingEvents::Claimed(e) => {
            let amount = amount(e.amount)?;
            let claim = claim_of(state, e.beneficiary)?;
            take(&mut claim.amount, amount)?;
            add(&mut claim.claimed, amount)?;
            Ok(Subject::default())
        }
    }
}

fn bond_of(state: &mut State, bonder: Address) -> Result<&mut Bond, Why> {
    let bond = state.bond.edit(bond::Key { bonder })?;
    Ok(bond.get_or_insert_with(|| Bond {
        bonder,
        bonded: Amount(0),
        locked: Amount(0),
        unbonding: Amount(0),
        withdrawable_at: 0,
        slashed: Amount(0),
    }))
}

fn lock_of(
    state: &mut State,
    bonder: Address,
    locker: Address,
    number: u128,
) -> Result<&mut BondLock, Why> {
    let lock = state.bond_lock.edit(bond_lock::Key { bonder, locker, ref_: number })?;
    lock.as_mut().ok_or_else(|| Why::Missing(format!("lock {number} of {locker} on {bonder}")))
}

fn claim_of(state: &mut State, beneficiary: Address) -> Result<&mut Claim, Why> {
    let claim = state.claim.edit(claim::Key { beneficiary })?;
    Ok(claim.get_or_insert_with(|| Claim { beneficiary, amount: Amount(0), claimed: Amount(0) }))
}
