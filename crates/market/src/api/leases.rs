//! Leases.

use store::{event, market};

use crate::{
    Problem,
    answer::{Answer, Now, One, Page},
    api::name_of,
    query::{Asked, Named, Nothing, On, queries, together},
    view::{Address, At, Event, Hash, Lease, LeaseRecord, LeaseState},
};

queries! {
    /// Which leases.
    Leases by u64 {
        /// Those in a state.
        state: LeaseState,
        /// Those of a provider.
        provider: Address,
        /// Those that an account pays for.
        account: Hash,
        /// Those of a pod, by its hash.
        pod: Hash,
        /// Only those that are not closed, of a provider or an account.
        #[param(inline)]
        open: On,
    }

    /// Which events.
    Events by At {}
}

/// Leases, the newest first
///
/// By one of `state`, `provider`, `account` and `pod`; `open` goes with `provider` and `account`.
#[utoipa::path(
    get, path = "/v1/leases", operation_id = "leases", params(Leases),
    responses((status = 200, description = "A page of leases.", body = Page<Lease>))
)]
pub(super) async fn list(
    Asked(query): Asked<Leases>,
    mut now: Now,
) -> Result<Answer<Page<Lease>>, Problem> {
    let (from, limit, conn) = (query.cursor, query.limit.rows(), now.conn());
    let rows = match (query.state, query.provider, query.account, query.pod, query.open) {
        (None, None, None, None, None) => market::leases(conn, from, limit).await?,
        (Some(LeaseState(state)), None, None, None, None) => {
            market::leases_in_state(conn, &name_of(state), from, limit).await?
        }
        (None, Some(Address(provider)), None, None, None) => {
            market::leases_of_provider(conn, provider, from, limit).await?
        }
        (None, Some(Address(provider)), None, None, Some(On::True)) => {
            market::open_leases_of_provider(conn, provider, from, limit).await?
        }
        (None, None, Some(Hash(account)), None, None) => {
            market::leases_of_account(conn, account, from, limit).await?
        }
        (None, None, Some(Hash(account)), None, Some(On::True)) => {
            market::open_leases_of_account(conn, account, from, limit).await?
        }
        (None, None, None, Some(Hash(pod)), None) => {
            market::leases_of_pod(conn, pod, from, limit).await?
        }
        _ => {
            let known = "state; provider; provider with open; account; account with open; pod";
            return Err(together(known));
        }
    };
    Ok(now.page(rows, query.limit, |row| row.id, Lease::from))
}

/// A lease, with what was found about it
#[utoipa::path(
    get, path = "/v1/leases/{id}", operation_id = "lease",
    params(("id" = u64, Path, description = "Its number.")),
    responses(
        (status = 200, description = "The lease.", body = One<LeaseRecord>),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    Named(id): Named<u64>,
    Asked(Nothing {}): Asked<Nothing>,
    mut now: Now,
) -> Result<Answer<One<LeaseRecord>>, Problem> {
    let found = market::lease(now.conn(), id).await?;
    Ok(now.one(found.ok_or_else(|| Problem::missing(format!("there is no lease {id}")))?))
}

/// Events about a lease, the newest first
#[utoipa::path(
    get, path = "/v1/leases/{id}/events", operation_id = "eventsOfLease",
    params(("id" = u64, Path, description = "Its number."), Events),
    responses((status = 200, description = "A page of events.", body = Page<Event>))
)]
pub(super) async fn events(
    Named(id): Named<u64>,
    Asked(query): Asked<Events>,
    mut now: Now,
) -> Result<Answer<Page<Event>>, Problem> {
    let before = query.cursor.map(|before| before.0);
    let rows = event::of_lease(now.conn(), id, before, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| At(row.place()), Event::from))
}
