//! Orders on the reverse market, and the bids for them.

use store::market;

use crate::{
    Problem,
    answer::{Answer, Now, One, Page},
    api::name_of,
    query::{Asked, Named, Nothing, On, queries, together},
    view::{Address, Bid, Hash, Order, OrderState},
};

queries! {
    /// Which orders.
    Orders by u64 {
        /// Those in a state.
        state: OrderState,
        /// Those that an account pays for.
        account: Hash,
        /// Only those that are not over, of an account.
        #[param(inline)]
        open: On,
        /// Those that a provider leads or was awarded.
        leader: Address,
    }

    /// Which bids.
    Bids by u64 {}
}

/// Orders, the newest first
///
/// By one of `state`, `account` and `leader`; `open` goes with `account`.
#[utoipa::path(
    get, path = "/v1/orders", operation_id = "orders", params(Orders),
    responses((status = 200, description = "A page of orders.", body = Page<Order>))
)]
pub(super) async fn list(
    Asked(query): Asked<Orders>,
    mut now: Now,
) -> Result<Answer<Page<Order>>, Problem> {
    let (from, limit, conn) = (query.cursor, query.limit.rows(), now.conn());
    let rows = match (query.state, query.account, query.open, query.leader) {
        (None, None, None, None) => market::orders(conn, from, limit).await?,
        (Some(OrderState(state)), None, None, None) => {
            market::orders_in_state(conn, &name_of(state), from, limit).await?
        }
        (None, Some(Hash(account)), None, None) => {
            market::orders_of_account(conn, account, from, limit).await?
        }
        (None, Some(Hash(account)), Some(On::True), None) => {
            market::open_orders_of_account(conn, account, from, limit).await?
        }
        (None, None, None, Some(Address(leader))) => {
            market::orders_led_by(conn, leader, from, limit).await?
        }
        _ => return Err(together("state; account; account with open; leader")),
    };
    Ok(now.page(rows, query.limit, |row| row.id, Order::from))
}

/// An order
#[utoipa::path(
    get, path = "/v1/orders/{id}", operation_id = "order",
    params(("id" = u64, Path, description = "Its number.")),
    responses(
        (status = 200, description = "The order.", body = One<Order>),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    Named(id): Named<u64>,
    Asked(Nothing {}): Asked<Nothing>,
    mut now: Now,
) -> Result<Answer<One<Order>>, Problem> {
    let found = market::order(now.conn(), id).await?;
    Ok(now.one(found.ok_or_else(|| Problem::missing(format!("there is no order {id}")))?))
}

/// Bids for an order, the last first
#[utoipa::path(
    get, path = "/v1/orders/{id}/bids", operation_id = "bidsOfOrder",
    params(("id" = u64, Path, description = "Its number."), Bids),
    responses((status = 200, description = "A page of bids.", body = Page<Bid>))
)]
pub(super) async fn bids(
    Named(id): Named<u64>,
    Asked(query): Asked<Bids>,
    mut now: Now,
) -> Result<Answer<Page<Bid>>, Problem> {
    let rows = market::bids(now.conn(), id, query.cursor, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| u64::from(row.number), Bid::from))
}
