//! The admin page: the provider's own view of itself, in a browser, and its metrics.
//!
//! Who may come: whoever reaches the listener, which is this machine alone unless the configuration says otherwise. Without
//! the token they are told to fetch it and nothing else, whatever they send. With it they see everything and may change
//! prices and mode; with the metrics' token they may read the metrics alone.
//!
//! A page that the operator has open elsewhere gains nothing: the cookie is for this site (`SameSite=Strict`) and out of
//! scripts' reach, each form carries a word that only this site knows, the browser's word on where a request comes from has
//! to be right, and a request under a name that is not an address is refused, so that no foreign name can be made to point
//! here. What leases and pods say is escaped, and nothing that comes from elsewhere is ever run or loaded: the one script is
//! this program's own, asks for the page that it is on, and copies what is new.

mod chart;
mod page;
mod prices;
mod token;

use std::{path::PathBuf, sync::Arc};

use axum::{
    Form, Json, Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::{Next, from_fn},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::Markup;
use serde::Deserialize;
use tokio::{
    sync::{Mutex, oneshot},
    task::JoinSet,
};

pub use self::token::{ADMIN_TOKEN, METRICS_TOKEN, Token};
pub(crate) use self::token::{bearer, is_address};
use self::{
    prices::{Entered, Proposal},
    token::{COOKIE, COOKIE_LIFE},
};
use crate::{
    causes,
    config::Config,
    facts::{self, Facts, Fixed, Mode, ModeName},
    house,
    leases::PodKey,
    reconcile::Shared,
    register::register,
};

/// The largest form.
const MAX_FORM: usize = 16 << 10;

/// What the page looks like.
const STYLE: &str =
    concat!(include_str!("../../../assets/base.css"), include_str!("admin/style.css"));

/// What brings a page up to date, where scripts run; nothing needs it.
const LIVE: &str = include_str!("../../../assets/live.js");

/// The longest maintenance that can be announced, in hours.
const MAX_HOURS: u64 = 24 * 365;

/// What the handlers need.
#[derive(Debug)]
pub(crate) struct Site {
    shared: Arc<Shared>,
    fixed: Fixed,
    config: Config,
    data: PathBuf,
    /// What goes on although whoever asked for it is gone, one after the other.
    jobs: Mutex<JoinSet<()>>,
}

type Caller = State<Arc<Site>>;

impl Site {
    /// Makes the tokens, if they are not there.
    pub(crate) fn open(config: &Config, shared: Arc<Shared>) -> std::io::Result<Self> {
        for name in [ADMIN_TOKEN, METRICS_TOKEN] {
            Token::open(&config.data, name)?;
        }
        Ok(Self {
            shared,
            fixed: Fixed::of(config),
            config: config.clone(),
            data: config.data.clone(),
            jobs: Mutex::default(),
        })
    }

    /// Read anew each time: one that was replaced is worth nothing any more.
    fn token(&self, name: &str) -> Option<Token> {
        Token::read(&self.data, name).ok()
    }

    fn facts(&self) -> Facts {
        facts::gather(&self.shared, &self.fixed)
    }

    /// Lists other prices, and asks for them from then on.
    async fn reprice(
        self: Arc<Self>,
        prices: protocol::resources::PriceList,
    ) -> Result<(), String> {
        let mut config = self.config.clone();
        config.prices = prices;
        let shared = &self.shared;
        let listed = register(&shared.sender, &config, &shared.keys).await;
        listed.map_err(|err| causes(&err))?;
        shared.house.prices.set(prices).map_err(|err| {
            format!("they are listed, and will not hold after a restart: {}", causes(&err))
        })?;
        tracing::info!("other prices are asked from now on");
        Ok(())
    }
}

/// All routes.
pub(crate) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/leases/{id}", get(lease))
        .route("/prices", get(prices_page).post(set_prices))
        .route("/mode", post(set_mode))
        .route("/login", get(login))
        .route("/logout", post(logout))
        .route("/status.json", get(status))
        .route("/metrics", get(metrics))
        .route("/style.css", get(style))
        .route("/live.js", get(live))
        .fallback(nothing)
        .with_state(site)
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(from_fn(guard))
}

/// Refuses names that could be somebody else's, and says what a browser may do with an answer.
async fn guard(request: axum::extract::Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_address) {
        let words = "reach this page by localhost or an address, as in http://127.0.0.1:9640/";
        return (StatusCode::MISDIRECTED_REQUEST, words).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                  form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Whoever shows the token: in a cookie, or as a bearer.
struct Operator {
    /// What their forms have to carry.
    form: String,
}

impl FromRequestParts<Arc<Site>> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Refusal> {
        let token = site.token(ADMIN_TOKEN).ok_or(Refusal::SignIn)?;
        if bearer(&parts.headers).is_some_and(|word| token.is(word)) {
            return Ok(Self { form: token.form_word("") });
        }
        let now = house::now();
        let cookie = token::cookies(&parts.headers).find(|cookie| token.holds(cookie, now));
        Ok(Self { form: token.form_word(cookie.ok_or(Refusal::SignIn)?) })
    }
}

impl Operator {
    /// Whether a form was sent from a page of this site.
    fn sent(&self, headers: &HeaderMap, word: &str) -> Result<(), Refusal> {
        match token::same(&self.form, word) && token::from_here(headers) {
            true => Ok(()),
            false => Err(Refusal::Foreign),
        }
    }
}

/// Why a page is not shown.
#[derive(Debug)]
enum Refusal {
    SignIn,
    Foreign,
    Missing(String),
    Wrong(String),
    Failed(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, title, words) = match self {
            Self::SignIn => (
                StatusCode::UNAUTHORIZED,
                "Sign in",
                "Run `roadstead provider admin` on this machine: it prints the address that signs you in.".into(),
            ),
            Self::Foreign => (
                StatusCode::FORBIDDEN,
                "Not from here",
                "This was not sent from a page of this site, or from one that is too old. Go back, reload, try again.".into(),
            ),
            Self::Missing(words) => (StatusCode::NOT_FOUND, "Not here", words),
            Self::Wrong(words) => (StatusCode::UNPROCESSABLE_ENTITY, "Not understood", words),
            Self::Failed(words) => (StatusCode::SERVICE_UNAVAILABLE, "It did not work", words),
        };
        (status, html(page::plain(title, &words))).into_response()
    }
}

fn html(markup: Markup) -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], markup.into_string()).into_response()
}

async fn nothing(_operator: Operator) -> Refusal {
    Refusal::Missing("There is no such page.".into())
}

async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

async fn live() -> Response {
    file("text/javascript; charset=utf-8", LIVE)
}

/// What is the same for everybody.
fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")];
    (headers, content).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginQuery {
    token: String,
}

async fn login(
    State(site): Caller,
    Query(query): Query<LoginQuery>,
) -> Result<impl IntoResponse, Refusal> {
    let token = site.token(ADMIN_TOKEN).filter(|token| token.is(&query.token));
    let token = token.ok_or(Refusal::SignIn)?;
    let value = token.cookie(house::now());
    let life = COOKIE_LIFE.as_secs();
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")))
}

#[derive(Debug, Deserialize)]
struct Word {
    form: String,
}

async fn logout(
    operator: Operator,
    headers: HeaderMap,
    Form(form): Form<Word>,
) -> Result<impl IntoResponse, Refusal> {
    operator.sent(&headers, &form.form)?;
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")))
}

#[derive(Debug, Default, Deserialize)]
struct Said {
    /// What was done just before.
    done: Option<String>,
    /// Which part of a long list is shown.
    #[serde(default)]
    page: usize,
}

async fn overview(
    State(site): Caller,
    operator: Operator,
    Query(said): Query<Said>,
) -> Result<Response, Refusal> {
    let facts = site.facts();
    let charts = |lease: u64| {
        let key = key(&site.shared, lease)?;
        site.shared.house.usage.series(key)
    };
    let notice = match said.done.as_deref() {
        Some("mode") => Some("The mode was changed."),
        Some("prices") => Some("The prices are listed, and asked from now on."),
        _ => None,
    };
    Ok(html(page::overview(&facts, &operator.form, notice, said.page, charts)))
}

/// The key of the lease of that number: as the chain has it, else as it was written down last.
fn key(shared: &Shared, lease: u64) -> Option<PodKey> {
    let snapshot = shared.seen.borrow().clone();
    let known = snapshot.leases.keys().find(|key| key.lease == lease).copied();
    known.or_else(|| {
        let records = shared.records.which(|record| record.lease == lease);
        records.iter().max_by_key(|record| record.ended).map(|record| record.key())
    })
}

async fn lease(
    State(site): Caller,
    operator: Operator,
    Path(id): Path<u64>,
) -> Result<Response, Refusal> {
    let missing = || Refusal::Missing(format!("Lease {id} is not known here, or not any more."));
    let key = key(&site.shared, id).ok_or_else(missing)?;
    let facts = site.facts();
    let series = site.shared.house.usage.series(key).unwrap_or_default();
    let events = site.shared.records.events(key, std::time::SystemTime::UNIX_EPOCH);
    let events = events.map(|(events, _news)| events).unwrap_or_default();
    Ok(html(page::lease(&facts, &operator.form, id, &series, &events)))
}

async fn prices_page(
    State(site): Caller,
    operator: Operator,
    Query(entered): Query<Entered>,
) -> Result<Response, Refusal> {
    let facts = site.facts();
    let proposal = Proposal::of(&entered, &facts.prices, &facts.token());
    Ok(html(page::prices(&facts, &operator.form, &entered, &proposal)))
}

#[derive(Debug, Deserialize)]
struct PriceForm {
    form: String,
    #[serde(flatten)]
    entered: Entered,
}

async fn set_prices(
    State(site): Caller,
    operator: Operator,
    headers: HeaderMap,
    Form(form): Form<PriceForm>,
) -> Result<Response, Refusal> {
    operator.sent(&headers, &form.form)?;
    let entered = form.entered;
    let facts = site.facts();
    let proposal = Proposal::of(&entered, &facts.prices, &facts.token());
    let Some(prices) = proposal.prices else {
        let page = html(page::prices(&facts, &operator.form, &entered, &proposal));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    // It goes on when the browser is gone: what is listed and what is asked have to be the same.
    let (tell, told) = oneshot::channel();
    let repricing = Arc::clone(&site);
    {
        let mut jobs = site.jobs.lock().await;
        while jobs.join_next().await.is_some() {}
        jobs.spawn(async move {
            let _gone = tell.send(repricing.reprice(prices).await);
        });
    }
    match told.await {
        Ok(Ok(())) => Ok(Redirect::to("/?done=prices").into_response()),
        Ok(Err(why)) => {
            site.shared.house.troubles.note("prices", &why);
            Err(Refusal::Failed(format!("The prices were not changed: {why}")))
        }
        Err(_) => Err(Refusal::Failed("The provider is stopping.".into())),
    }
}

#[derive(Debug, Deserialize)]
struct ModeForm {
    form: String,
    mode: ModeName,
    #[serde(default)]
    hours: String,
    #[serde(default)]
    why: String,
}

async fn set_mode(
    State(site): Caller,
    operator: Operator,
    headers: HeaderMap,
    Form(form): Form<ModeForm>,
) -> Result<Redirect, Refusal> {
    operator.sent(&headers, &form.form)?;
    let until = match form.hours.trim() {
        "" => None,
        hours => {
            let hours = hours.parse().ok().filter(|hours| (1..=MAX_HOURS).contains(hours));
            let hours = hours.ok_or_else(|| {
                let words =
                    "is no number of hours from 1 to 8760; leave it empty if you do not know";
                Refusal::Wrong(format!("{:?} {words}.", form.hours))
            })?;
            Some(house::now() + hours * 3_600)
        }
    };
    let told = form.mode == ModeName::Maintenance;
    let mode = Mode::begin(form.mode, until.filter(|_| told), told.then_some(form.why.as_str()));
    let set = site.shared.house.mode.set(&mode);
    set.map_err(|err| Refusal::Failed(format!("The mode was not changed: {}", causes(&err))))?;
    tracing::info!("mode: {}", mode.words());
    Ok(Redirect::to("/?done=mode"))
}

async fn status(State(site): Caller, _operator: Operator) -> Json<Facts> {
    Json(site.facts())
}

async fn metrics(State(site): Caller, headers: HeaderMap) -> Response {
    let allowed = [METRICS_TOKEN, ADMIN_TOKEN].iter().any(|name| {
        let token = site.token(name);
        token.is_some_and(|token| {
            bearer(&headers).is_some_and(|word| token.is(word))
                || *name == ADMIN_TOKEN
                    && token::cookies(&headers).any(|c| token.holds(c, house::now()))
        })
    });
    if !allowed {
        let words = "send `Authorization: Bearer` with what is in metrics.token, in the provider's data folder\n";
        return (StatusCode::UNAUTHORIZED, words).into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = site.shared.house.metrics.render(&site.facts());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
