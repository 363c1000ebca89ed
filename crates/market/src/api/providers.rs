//! Providers, and what is theirs.

use serde::{Deserialize, Deserializer, de::Error};
use store::{event, market};
use utoipa::ToSchema;

use crate::{
    MOST_VOUCHES, Problem,
    answer::{Answer, Now, One, Page},
    query::{Asked, Named, Nothing, On, queries, together},
    view::{Address, At, Event, Lease, Order, Price, Provider},
};

/// The longest region of a listing, in bytes.
const LONGEST_REGION: usize = 64;

/// How many vouches of each provider are in a list.
const FEW_VOUCHES: u32 = 10;

/// Where machines are, as far as a listing can say it.
#[derive(Debug)]
pub(crate) struct Region(String);

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let region = String::deserialize(from)?;
        if region.len() > LONGEST_REGION || region.contains('\0') {
            let what = format!("no region is longer than {LONGEST_REGION} bytes or holds a NUL");
            return Err(D::Error::custom(what));
        }
        Ok(Self(region))
    }
}

/// Which providers.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Listed {
    /// Also those that left.
    All,
}

queries! {
    /// Which providers.
    Providers by Address {
        /// `all`: also those that left.
        #[param(inline)]
        listed: Listed,
        /// Those of one region, letter by letter as they write it.
        #[param(value_type = Option<String>, max_length = 64)]
        region: Region,
    }

    /// Which leases.
    Leases by u64 {
        /// Only those that are not closed.
        #[param(inline)]
        open: On,
    }

    /// Which of the numbered.
    Numbered by u64 {}

    /// Which events.
    Events by At {}
}

/// Providers, by their addresses
///
/// `listed` and `region` do not go together.
#[utoipa::path(
    get, path = "/v1/providers", operation_id = "providers", params(Providers),
    responses((status = 200, description = "A page of providers.", body = Page<Provider>))
)]
pub(super) async fn list(
    Asked(query): Asked<Providers>,
    mut now: Now,
) -> Result<Answer<Page<Provider>>, Problem> {
    let aspects = now.market().aspects(now.cursor(), FEW_VOUCHES);
    let (from, limit, conn) = (query.cursor.map(|from| from.0), query.limit.rows(), now.conn());
    let rows = match (query.listed, query.region) {
        (None, None) => market::listed_standings_after(conn, aspects, from, limit).await?,
        (Some(Listed::All), None) => market::standings_after(conn, aspects, from, limit).await?,
        (None, Some(Region(region))) => {
            market::listed_standings_in(conn, aspects, &region, from, limit).await?
        }
        (Some(Listed::All), Some(_)) => return Err(together("listed; region")),
    };
    Ok(now.page(rows, query.limit, |row| Address(row.provider.address), Provider::from))
}

/// A provider
#[utoipa::path(
    get, path = "/v1/providers/{address}", operation_id = "provider",
    params(("address" = Address, Path, description = "Who it is.")),
    responses(
        (status = 200, description = "The provider.", body = One<Provider>),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    Named(provider): Named<Address>,
    Asked(Nothing {}): Asked<Nothing>,
    mut now: Now,
) -> Result<Answer<One<Provider>>, Problem> {
    let aspects = now.market().aspects(now.cursor(), MOST_VOUCHES);
    let found = market::standings_of(now.conn(), aspects, &[provider.0]).await?.pop();
    let missing = || Problem::missing(format!("{provider} never listed itself as a provider"));
    Ok(now.one(found.ok_or_else(missing)?))
}

/// A provider's leases, the newest first
#[utoipa::path(
    get, path = "/v1/providers/{address}/leases", operation_id = "leasesOfProvider",
    params(("address" = Address, Path, description = "Who it is."), Leases),
    responses((status = 200, description = "A page of leases.", body = Page<Lease>))
)]
pub(super) async fn leases(
    Named(Address(provider)): Named<Address>,
    Asked(query): Asked<Leases>,
    mut now: Now,
) -> Result<Answer<Page<Lease>>, Problem> {
    let (from, limit, conn) = (query.cursor, query.limit.rows(), now.conn());
    let rows = match query.open {
        None => market::leases_of_provider(conn, provider, from, limit).await?,
        Some(On::True) => market::open_leases_of_provider(conn, provider, from, limit).await?,
    };
    Ok(now.page(rows, query.limit, |row| row.id, Lease::from))
}

/// What a provider asked for, the latest first
#[utoipa::path(
    get, path = "/v1/providers/{address}/prices", operation_id = "pricesOfProvider",
    params(("address" = Address, Path, description = "Who it is."), Numbered),
    responses((status = 200, description = "A page of prices.", body = Page<Price>))
)]
pub(super) async fn prices(
    Named(Address(provider)): Named<Address>,
    Asked(query): Asked<Numbered>,
    mut now: Now,
) -> Result<Answer<Page<Price>>, Problem> {
    let rows = market::prices(now.conn(), provider, query.cursor, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| row.version, Price::from))
}

/// Orders that a provider leads or was awarded, the newest first
#[utoipa::path(
    get, path = "/v1/providers/{address}/orders", operation_id = "ordersOfProvider",
    params(("address" = Address, Path, description = "Who it is."), Numbered),
    responses((status = 200, description = "A page of orders.", body = Page<Order>))
)]
pub(super) async fn orders(
    Named(Address(provider)): Named<Address>,
    Asked(query): Asked<Numbered>,
    mut now: Now,
) -> Result<Answer<Page<Order>>, Problem> {
    let rows =
        market::orders_led_by(now.conn(), provider, query.cursor, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| row.id, Order::from))
}

/// Events about a provider, the newest first
#[utoipa::path(
    get, path = "/v1/providers/{address}/events", operation_id = "eventsOfProvider",
    params(("address" = Address, Path, description = "Who it is."), Events),
    responses((status = 200, description = "A page of events.", body = Page<Event>))
)]
pub(super) async fn events(
    Named(Address(provider)): Named<Address>,
    Asked(query): Asked<Events>,
    mut now: Now,
) -> Result<Answer<Page<Event>>, Problem> {
    let before = query.cursor.map(|before| before.0);
    let rows = event::of_provider(now.conn(), provider, before, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| At(row.place()), Event::from))
}
