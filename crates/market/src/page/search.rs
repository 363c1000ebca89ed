//! From what somebody typed to the page that is meant.

use alloy_primitives::{Address, B256};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;
use store::market;

use super::{Asked, Fault, Page, words};

/// The longest that anything is called here.
const LONGEST: usize = 100;

#[derive(Debug, Deserialize)]
pub(super) struct Words {
    #[serde(default)]
    q: String,
}

/// What was typed, by its form alone.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    Address(Address),
    Hash(B256),
    Number(Option<Kind>, u64),
    Name(String),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lease,
    Order,
    App,
}

impl Meant {
    fn of(text: &str) -> Self {
        let text = text.trim().to_lowercase();
        if text.is_empty() || text.len() > LONGEST || text.contains('\0') {
            return Self::Nothing;
        }
        if let Ok(address) = text.parse() {
            return Self::Address(address);
        }
        if let Ok(hash) = text.parse() {
            return Self::Hash(hash);
        }
        let kinds = [("lease", Kind::Lease), ("order", Kind::Order), ("app", Kind::App)];
        for (name, kind) in kinds {
            let number = text.strip_prefix(name).map(|rest| rest.trim().trim_start_matches('#'));
            if let Some(Ok(number)) = number.map(str::parse) {
                return Self::Number(Some(kind), number);
            }
        }
        match text.trim_start_matches('#').parse() {
            Ok(number) => Self::Number(None, number),
            Err(_) => Self::Name(text),
        }
    }
}

pub(super) async fn find(mut page: Page, Asked(asked): Asked<Words>) -> Result<Response, Fault> {
    let meant = Meant::of(&asked.q);
    let aspects = page.aspects(0);
    let path = match &meant {
        Meant::Address(who) => {
            let found = market::standings_of(page.conn(), aspects, &[*who]).await?;
            let is_provider = !found.is_empty();
            Some(format!("/{}/{who}", if is_provider { "providers" } else { "owners" }))
        }
        Meant::Hash(hash) => {
            let is_account = market::account(page.conn(), *hash).await?.is_some();
            let of_pod = !market::leases_of_pod(page.conn(), *hash, None, 1).await?.is_empty();
            match (is_account, of_pod) {
                (true, _) => Some(format!("/accounts/{hash}")),
                (false, true) => Some(format!("/leases?pod={hash}")),
                (false, false) => None,
            }
        }
        Meant::Number(Some(Kind::Order), id) => Some(format!("/orders/{id}")),
        Meant::Number(Some(Kind::App), id) => Some(format!("/apps/{id}")),
        Meant::Number(Some(Kind::Lease) | None, id) => Some(format!("/leases/{id}")),
        Meant::Name(name) => {
            market::app_named(page.conn(), name).await?.map(|app| super::app::path(&app))
        }
        Meant::Nothing => None,
    };
    if let Some(path) = path {
        return Ok(Redirect::to(&path).into_response());
    }
    let body = html! {
        h1 { "Nothing found" }
        @if meant == Meant::Nothing {
            p { "Nothing was asked for that could be here." }
        } @else {
            p { "Nothing here is called " strong { (words::foreign(&asked.q, LONGEST)) } "." }
        }
        p {
            "Type an address (0x and 40 hexadecimal digits), an account or a pod (0x and 64), a lease as 7 or lease 7, an "
            "order as order 7, or the name of an app."
        }
    };
    let shown = page.show("Nothing found", "", &body);
    Ok((axum::http::StatusCode::NOT_FOUND, shown).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_seen_by_its_form() {
        let address = "0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        assert_eq!(Meant::of(&format!(" {address}\n")), Meant::Address(address.parse().unwrap()));
        let hash = B256::repeat_byte(7);
        assert_eq!(Meant::of(&hash.to_string()), Meant::Hash(hash));
        for (text, kind, number) in [
            ("7", None, 7),
            ("#7", None, 7),
            ("lease 7", Some(Kind::Lease), 7),
            ("Order #12", Some(Kind::Order), 12),
            ("app3", Some(Kind::App), 3),
        ] {
            assert_eq!(Meant::of(text), Meant::Number(kind, number), "{text}");
        }
        assert_eq!(Meant::of("Shop"), Meant::Name("shop".into()));
        assert_eq!(Meant::of("order"), Meant::Name("order".into()));
        for text in ["", "   ", "a\0b", &"x".repeat(101)] {
            assert_eq!(Meant::of(text), Meant::Nothing, "{text:?}");
        }
    }
}
