//! Auction: orders, and who bids how much for them.

use alloy::primitives::Address;
use chain::abi::Auction::AuctionEvents;
use protocol::amount::{Amount, Rate};
use store::{
    auction::{self, Auction, Outcome, Requirement, State as OrderState},
    bid::{self, Bid},
    codec::text,
    event::Subject,
};

use super::{At, State, Why, add, amount};

pub(super) fn want(state: &mut State, event: &AuctionEvents) {
    let id = match event {
        AuctionEvents::Placed(e) => e.id,
        AuctionEvents::Bid(e) => {
            state.bid.want(bid::Key { auction: e.id, number: e.bids });
            e.id
        }
        AuctionEvents::Awarded(e) => e.id,
        AuctionEvents::Reopened(e) => e.id,
        AuctionEvents::Over(e) => e.id,
        AuctionEvents::Claimed(_) => return,
    };
    state.auction.want(auction::Key { id });
}

pub(super) fn apply(state: &mut State, event: &AuctionEvents, at: At) -> Result<Subject, Why> {
    match event {
        AuctionEvents::Placed(e) => {
            let o = &e.order;
            let row = state.auction.edit(auction::Key { id: e.id })?;
            if row.is_some() {
                return Err(Why::Exists(format!("order {}", e.id)));
            }
            let requirement = |r: &chain::abi::IAuction::Requirement| Requirement {
                auditor: r.auditor,
                attribute: r.attribute,
            };
            *row = Some(Auction {
                id: e.id,
                account: e.account,
                payer: e.payer,
                slot: o.slot,
                pod: o.pod,
                cpu: o.cpu,
                memory_mib: o.memoryMiB,
                storage_mib: o.storageMiB,
                max_rate: Rate(o.maxRate),
                coverage: Amount(o.coverage),
                lock: o.lock,
                grace: o.grace.to(),
                full: o.full.to(),
                response: o.response.to(),
                notice: o.notice.to(),
                start_within: o.startWithin.to(),
                duration: o.duration,
                self_award: o.selfAward,
                requirements: o.requirements.iter().map(requirement).collect(),
                uri: text(&o.uri).into_owned(),
                state: OrderState::Open,
                placed_at: at.time,
                deadline: e.deadline.to(),
                leader: None,
                rate: Rate(o.maxRate),
                bids: 0,
                reopened: 0,
                lease: None,
                outcome: None,
                over_at: None,
                penalty: Amount(0),
            });
            Ok(Subject { account: Some(e.account), ..Subject::default() })
        }
        AuctionEvents::Bid(e) => {
            let key = bid::Key { auction: e.id, number: e.bids };
            *state.bid.edit(key)? = Some(Bid {
                auction: e.id,
                number: e.bids,
                bidder: e.bidder,
                rate: Rate(e.rate),
                time: at.time,
            });
            let order = order_of(state, e.id)?;
            order.leader = Some(e.bidder);
            order.rate = Rate(e.rate);
            order.deadline = e.deadline.to();
            order.bids = e.bids;
            Ok(about(order, e.bidder))
        }
        AuctionEvents::Awarded(e) => {
            let order = order_of(state, e.id)?;
            order.state = OrderState::Awarded;
            order.lease = Some(e.lease);
            order.rate = Rate(e.rate);
            Ok(about(order, e.provider))
        }
        AuctionEvents::Reopened(e) => {
            let order = order_of(state, e.id)?;
            let subject = about(order, e.provider);
            order.state = OrderState::Open;
            order.leader = None;
            order.rate = order.max_rate;
            order.lease = None;
            order.deadline = e.deadline.to();
            order.reopened += 1;
            add(&mut order.penalty, amount(e.penalty)?)?;
            Ok(subject)
        }
        AuctionEvents::Over(e) => {
            let order = order_of(state, e.id)?;
            order.state = OrderState::Over;
            order.outcome = Some(Outcome::of(e.outcome).ok_or(Why::Outcome(e.outcome))?);
            order.over_at = Some(at.time);
            add(&mut order.penalty, amount(e.penalty)?)?;
            Ok(about(order, e.provider))
        }
        // What can be claimed is the order's deposit, which is the same for all.
        AuctionEvents::Claimed(_) => Ok(Subject::default()),
    }
}

fn about(order: &Auction, provider: Address) -> Subject {
    let provider = Some(provider).filter(|provider| !provider.is_zero());
    Subject { account: Some(order.account), provider, lease: order.lease }
}

fn order_of(state: &mut State, id: u64) -> Result<&mut Auction, Why> {
    let order = state.auction.edit(auction::Key { id })?;
    order.as_mut().ok_or_else(|| Why::Missing(format!("order {id}")))
}
