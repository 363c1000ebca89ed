//! Apps that keepers keep deployed.

use std::fmt;

use store::{PgConnection, app, market};

use crate::{
    Problem,
    answer::{Answer, Now, One, Page},
    query::{Asked, Named, Nothing, On, queries, together},
    view::{Address, App, Hash, Key, Replica},
};

queries! {
    /// Which apps.
    Apps by u64 {
        /// Those of an owner.
        owner: Address,
        /// Those of a keeper.
        keeper: Address,
        /// Those that an account pays for.
        account: Hash,
        /// Only those that were not given up.
        #[param(inline)]
        kept: On,
    }

    /// Which replicas.
    Replicas by u32 {}
}

/// How an app is named in a path. A name of digits alone stands behind `name:`.
#[derive(Debug)]
pub(crate) enum Which {
    Id(u64),
    Name(String),
}

/// The longest name of an app: a DNS label.
const LONGEST_NAME: usize = 63;

impl Key for Which {
    const IS: &'static str = "an app's number, or a name: lower-case letters, digits and hyphens";

    fn read(text: &str) -> Option<Self> {
        if let Some(id) = crate::view::number(text) {
            return Some(Self::Id(id));
        }
        let name = text.strip_prefix("name:").unwrap_or(text);
        let fits = (1..=LONGEST_NAME).contains(&name.len());
        let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (fits && name.bytes().all(label)).then(|| Self::Name(name.to_owned()))
    }
}

impl Which {
    /// How an app is named in a path: by its name while it has it.
    pub(crate) fn path(app: &app::App) -> String {
        match app.named {
            true if crate::view::number(&app.name).is_some() => format!("name:{}", app.name),
            true => app.name.clone(),
            false => app.id.to_string(),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "app {id}"),
            Self::Name(name) => write!(f, "app with the name {name:?}"),
        }
    }
}

/// The app that is named so.
pub(crate) async fn find(conn: &mut PgConnection, which: &Which) -> Result<app::App, Problem> {
    let found = match which {
        Which::Id(id) => market::app(conn, *id).await?,
        Which::Name(name) => market::app_named(conn, name).await?,
    };
    found.ok_or_else(|| Problem::missing(format!("there is no {which}")))
}

/// Apps, the newest first
///
/// By one of `owner`, `keeper`, `account` and `kept`.
#[utoipa::path(
    get, path = "/v1/apps", operation_id = "apps", params(Apps),
    responses((status = 200, description = "A page of apps.", body = Page<App>))
)]
pub(super) async fn list(
    Asked(query): Asked<Apps>,
    mut now: Now,
) -> Result<Answer<Page<App>>, Problem> {
    let (from, limit, conn) = (query.cursor, query.limit.rows(), now.conn());
    let rows = match (query.owner, query.keeper, query.account, query.kept) {
        (None, None, None, None) => market::apps(conn, from, limit).await?,
        (Some(Address(owner)), None, None, None) => {
            market::apps_of_owner(conn, owner, from, limit).await?
        }
        (None, Some(Address(keeper)), None, None) => {
            market::apps_of_keeper(conn, keeper, from, limit).await?
        }
        (None, None, Some(Hash(account)), None) => {
            market::apps_of_account(conn, account, from, limit).await?
        }
        (None, None, None, Some(On::True)) => market::kept_apps(conn, from, limit).await?,
        _ => return Err(together("owner; keeper; account; kept")),
    };
    Ok(now.page(rows, query.limit, |row| row.id, App::from))
}

/// An app
#[utoipa::path(
    get, path = "/v1/apps/{app}", operation_id = "app",
    params(("app" = String, Path, description = "Its number, or its name. A name of digits alone stands behind `name:`.")),
    responses(
        (status = 200, description = "The app.", body = One<App>),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    Named(which): Named<Which>,
    Asked(Nothing {}): Asked<Nothing>,
    mut now: Now,
) -> Result<Answer<One<App>>, Problem> {
    let found = find(now.conn(), &which).await?;
    Ok(now.one(found))
}

/// An app's replicas with the last lease of each, in their order
#[utoipa::path(
    get, path = "/v1/apps/{app}/replicas", operation_id = "replicasOfApp",
    params(
        ("app" = String, Path, description = "Its number, or its name. A name of digits alone stands behind `name:`."),
        Replicas,
    ),
    responses(
        (status = 200, description = "A page of replicas.", body = Page<Replica>),
        (status = 404, description = "There is no such app.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replicas(
    Named(which): Named<Which>,
    Asked(query): Asked<Replicas>,
    mut now: Now,
) -> Result<Answer<Page<Replica>>, Problem> {
    let app = find(now.conn(), &which).await?;
    let rows = market::replicas(now.conn(), app.id, query.cursor, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| row.replica, Replica::from))
}
