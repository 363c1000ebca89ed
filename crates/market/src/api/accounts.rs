//! Accounts, as they are at the time of the block.

use store::{PgConnection, account, event, market};

use crate::{
    Problem,
    answer::{Answer, Now, One, Page},
    query::{Asked, Named, Nothing, On, queries},
    view::{Account, Address, At, Event, Hash, Lease, Stream},
};

queries! {
    /// Which accounts.
    Accounts by Hash {
        /// Those of an owner.
        owner: Address,
    }

    /// Which streams.
    Streams by Hash {}

    /// Which leases.
    Leases by u64 {
        /// Only those that are not closed.
        #[param(inline)]
        open: On,
    }

    /// Which events.
    Events by At {}
}

async fn find(conn: &mut PgConnection, id: Hash) -> Result<account::Account, Problem> {
    let found = market::account(conn, id.0).await?;
    found.ok_or_else(|| Problem::missing(format!("there is no account {id}")))
}

/// Accounts, by their ids
#[utoipa::path(
    get, path = "/v1/accounts", operation_id = "accounts", params(Accounts),
    responses((status = 200, description = "A page of accounts.", body = Page<Account>))
)]
pub(super) async fn list(
    Asked(query): Asked<Accounts>,
    mut now: Now,
) -> Result<Answer<Page<Account>>, Problem> {
    let (from, limit, time) =
        (query.cursor.map(|from| from.0), query.limit.rows(), now.cursor().time);
    let rows = match query.owner {
        None => market::accounts(now.conn(), from, limit).await?,
        Some(Address(owner)) => market::accounts_of(now.conn(), owner, from, limit).await?,
    };
    Ok(now.page(rows, query.limit, |row| Hash(row.id), |row| Account::at(&row, time)))
}

/// An account
#[utoipa::path(
    get, path = "/v1/accounts/{id}", operation_id = "account",
    params(("id" = Hash, Path, description = "Its id.")),
    responses(
        (status = 200, description = "The account.", body = One<Account>),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    Named(id): Named<Hash>,
    Asked(Nothing {}): Asked<Nothing>,
    mut now: Now,
) -> Result<Answer<One<Account>>, Problem> {
    let time = now.cursor().time;
    let found = find(now.conn(), id).await?;
    Ok(now.one(Account::at(&found, time)))
}

/// An account's streams, by their ids
#[utoipa::path(
    get, path = "/v1/accounts/{id}/streams", operation_id = "streamsOfAccount",
    params(("id" = Hash, Path, description = "Its id."), Streams),
    responses(
        (status = 200, description = "A page of streams.", body = Page<Stream>),
        (status = 404, description = "There is no such account.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn streams(
    Named(id): Named<Hash>,
    Asked(query): Asked<Streams>,
    mut now: Now,
) -> Result<Answer<Page<Stream>>, Problem> {
    let time = now.cursor().time;
    let account = find(now.conn(), id).await?;
    let from = query.cursor.map(|from| from.0);
    let rows = market::streams(now.conn(), id.0, from, query.limit.rows()).await?;
    let show = |row| Stream::at(&row, &account, time);
    Ok(now.page(rows, query.limit, |row| Hash(row.id), show))
}

/// Leases that an account pays for, the newest first
#[utoipa::path(
    get, path = "/v1/accounts/{id}/leases", operation_id = "leasesOfAccount",
    params(("id" = Hash, Path, description = "Its id."), Leases),
    responses((status = 200, description = "A page of leases.", body = Page<Lease>))
)]
pub(super) async fn leases(
    Named(Hash(account)): Named<Hash>,
    Asked(query): Asked<Leases>,
    mut now: Now,
) -> Result<Answer<Page<Lease>>, Problem> {
    let (from, limit, conn) = (query.cursor, query.limit.rows(), now.conn());
    let rows = match query.open {
        None => market::leases_of_account(conn, account, from, limit).await?,
        Some(On::True) => market::open_leases_of_account(conn, account, from, limit).await?,
    };
    Ok(now.page(rows, query.limit, |row| row.id, Lease::from))
}

/// Events about an account, the newest first
#[utoipa::path(
    get, path = "/v1/accounts/{id}/events", operation_id = "eventsOfAccount",
    params(("id" = Hash, Path, description = "Its id."), Events),
    responses((status = 200, description = "A page of events.", body = Page<Event>))
)]
pub(super) async fn events(
    Named(Hash(account)): Named<Hash>,
    Asked(query): Asked<Events>,
    mut now: Now,
) -> Result<Answer<Page<Event>>, Problem> {
    let before = query.cursor.map(|before| before.0);
    let rows = event::of_account(now.conn(), account, before, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| At(row.place()), Event::from))
}
