//! What one address may use of the market, and all of them together.
//!
//! Strangers send here, so everything is bounded: connections and streams by counting them, requests by their rate. An
//! address is an IPv4 address or an IPv6 /64, which is what one subscriber has.

use std::{
    collections::HashMap,
    future::{Ready, ready},
    io,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use axum_server::accept::Accept;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tower_http::add_extension::AddExtension;

use crate::{Market, Problem};

/// What may be used.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests per second of one address, in the long run.
    pub requests: NonZeroU32,
    /// Requests of one address at once, after a pause.
    pub burst: NonZeroU32,
    /// Connections.
    pub connections: usize,
    /// Connections of one address.
    pub connections_each: usize,
    /// Streams of changes.
    pub streams: usize,
    /// Streams of changes of one address.
    pub streams_each: usize,
    /// How long the head of a request may take, and a connection may wait for one.
    pub head: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub stall: Duration,
    /// How often something is sent on a stream where nothing happens; then it is also looked whether something was missed.
    pub quiet: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let some = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            requests: some(20),
            burst: some(100),
            connections: 1_024,
            connections_each: 64,
            streams: 256,
            streams_each: 8,
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            quiet: Duration::from_secs(15),
        }
    }
}

/// Places of which an address has some at most, and all together have some at most.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    each: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place that is taken; it is free again once this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    who: IpAddr,
    places: Arc<Places>,
}

impl Places {
    pub(crate) fn new(most: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { most, each, taken: Mutex::default() })
    }

    /// A place, unless there is none for this address.
    pub(crate) fn take(self: &Arc<Self>, who: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&who).copied().unwrap_or(0);
        if all >= self.most || own >= self.each {
            return None;
        }
        taken.insert(who, own + 1);
        Some(Place { who, places: Arc::clone(self) })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.who).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.who);
        } else {
            taken.insert(self.who, left);
        }
    }
}

/// Whose an address is: of IPv6 the first half says it.
fn subscriber(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

/// Lets connections in while there are places, and drops those whose client takes nothing.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) places: Arc<Places>,
    pub(crate) stall: Duration,
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Pin<Box<TimeoutStream<TcpStream>>>;
    type Service = AddExtension<S, Arc<Place>>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admit = || {
            let who = subscriber(stream.peer_addr()?.ip());
            let place = self.places.take(who).ok_or_else(|| io::Error::other("no place"))?;
            stream.set_nodelay(true)?;
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.stall));
            Ok((Box::pin(stream), AddExtension::new(service, Arc::new(place))))
        };
        ready(admit())
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose(pub(crate) IpAddr);

impl FromRequestParts<Arc<Market>> for Whose {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, market: &Arc<Market>) -> Result<Self, Problem> {
        let forwarded = market.behind_proxy().then(|| forwarded(&parts.headers)).flatten();
        let peer = || parts.extensions.get::<Arc<Place>>().map(|place| place.who);
        let who = forwarded.or_else(peer).ok_or_else(|| Problem::away("who asks is not known"))?;
        Ok(Self(who))
    }
}

/// Whom the proxy in front of the market saw: the last one of the header, since those before are what that one said.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    let last = last.to_str().ok()?.rsplit(',').next()?;
    last.trim().parse().ok().map(subscriber)
}

/// How often each address asks.
#[derive(Debug)]
pub(crate) struct Requests(DefaultKeyedRateLimiter<IpAddr>);

impl Requests {
    pub(crate) fn new(limits: &Limits) -> Self {
        let quota = Quota::per_second(limits.requests).allow_burst(limits.burst);
        Self(RateLimiter::dashmap(quota))
    }

    /// Counts one. If there were too many: for how many seconds to wait.
    fn count(&self, who: IpAddr) -> Result<(), u64> {
        self.0.check_key(&who).map_err(|refused| {
            let wait = refused.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + 1
        })
    }

    /// Forgets who has not asked for so long that it does not count any more.
    pub(crate) fn forget(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}

/// Refuses who asks too often.
pub(crate) async fn limit(
    State(market): State<Arc<Market>>,
    Whose(who): Whose,
    request: Request,
    next: Next,
) -> Response {
    match market.requests().count(who) {
        Ok(()) => next.run(request).await,
        Err(wait) => too_many("too many requests of one address", wait),
    }
}

/// A refusal that says when to come back.
pub(crate) fn too_many(what: &str, wait: u64) -> Response {
    let problem = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        format!("{what}; come back in {wait} s, or run a market of your own"),
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = Places::new(3, 2);
        let (a, b) = (IpAddr::from([1, 1, 1, 1]), IpAddr::from([2, 2, 2, 2]));
        let first = places.take(a).unwrap();
        let second = places.take(a).unwrap();
        assert!(places.take(a).is_none(), "one address has two");
        let third = places.take(b).unwrap();
        assert!(places.take(b).is_none(), "all have three");
        drop((first, third));
        assert_eq!(places.taken(), 1);
        let _again = (places.take(a).unwrap(), places.take(b).unwrap());
        drop(second);
        assert_eq!(places.taken(), 2);
    }

    #[test]
    fn nothing_stays_of_who_left() {
        let places = Places::new(3, 2);
        drop(places.take(IpAddr::from([1, 1, 1, 1])));
        assert!(places.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn the_proxy_is_believed_and_nobody_before_it() {
        let check = |values: &[&'static str], wanted: Option<&str>| {
            let headers = values
                .iter()
                .map(|value| ("x-forwarded-for".parse().unwrap(), HeaderValue::from_static(value)));
            let wanted = wanted.map(|ip| ip.parse().unwrap());
            assert_eq!(forwarded(&headers.collect()), wanted, "{values:?}");
        };
        check(&[], None);
        check(&["1.2.3.4"], Some("1.2.3.4"));
        check(&["6.6.6.6, 1.2.3.4"], Some("1.2.3.4"));
        check(&["6.6.6.6", "1.2.3.4"], Some("1.2.3.4"));
        check(&["1.2.3.4, nobody"], None);
        check(&["2001:db8:1:2:3:4:5:6"], Some("2001:db8:1:2::"));
        check(&["::ffff:1.2.3.4"], Some("1.2.3.4"));
    }
}
