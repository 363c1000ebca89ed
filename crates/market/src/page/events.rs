//! What happened, as the chain tells it.

use maud::{Markup, html};
use protocol::{
    amount::{Amount, Rate, Token},
    lease::CloseReason,
};
use serde_json::Value;
use store::event::Event;

use super::{
    Page, hash, table,
    words::{clean, day, money, per_hour, short, span},
};

/// How much is said of one event, in characters.
const MOST: usize = 300;

/// A table of events, the newest first.
pub(super) fn list(page: &Page, id: &str, events: &[Event]) -> Markup {
    let rows: Vec<Vec<Markup>> = events
        .iter()
        .map(|event| {
            vec![
                html! { (name(&event.name)) span class="small" { (event.contract) " " (event.name) } },
                page.when(event.time),
                html! { span class="args" { (arguments(page.token(), event.args.get())) } },
                html! { (hash(event.tx)) span class="small" { "block " (event.block) } },
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "None." } }
        @else { (table(id, "As the contracts told of them, the newest first.", &["What", "When", "How", "Transaction"], &rows)) }
    }
}

/// An event's name in plain words.
fn name(name: &str) -> String {
    // The one unit that names have.
    if let Some(name) = name.strip_suffix("MiB") {
        return format!("{name} MiB");
    }
    let mut words = String::new();
    for (index, letter) in name.chars().enumerate() {
        if index > 0 && letter.is_uppercase() {
            words.push(' ');
            words.extend(letter.to_lowercase());
        } else {
            words.push(letter);
        }
    }
    words
}

/// What an event says, short: strings of strangers are among it.
fn arguments(token: &Token, args: &str) -> String {
    let value: Value = serde_json::from_str(args).unwrap_or_default();
    let mut said = Vec::new();
    flatten(token, &value, "", &mut said);
    // What an event says beside a quote or an order is often in that, too.
    let mut once = std::collections::HashSet::new();
    said.retain(|part| once.insert(part.clone()));
    clean(&said.join(", "), MOST)
}

fn flatten(token: &Token, value: &Value, name: &str, said: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                // A field that is called as a keyword of Rust is.
                flatten(token, value, field.trim_start_matches("r#"), said);
            }
        }
        Value::Array(all) => said.push(format!("{} {}", all.len(), words_of(name))),
        Value::String(text) if text.starts_with("0x") && text.len() > 20 => {
            said.push(format!("{} {}", words_of(name), short(&clean(text, 80))));
        }
        Value::String(text) => said.push(told(token, name, text)),
        Value::Bool(is) => {
            said.push(format!("{}: {}", words_of(name), if *is { "yes" } else { "no" }))
        }
        Value::Null => {}
        Value::Number(number) => said.push(told(token, name, &number.to_string())),
    }
}

/// A number in its unit, where its name says which that is.
fn told(token: &Token, name: &str, text: &str) -> String {
    let said = match (name, text.parse::<u128>()) {
        ("amount" | "coverage" | "penalty" | "compensation" | "due" | "bond", Ok(base)) => {
            money(Amount(base), token)
        }
        ("rate" | "maxRate" | "fee", Ok(rate)) => per_hour(Rate(rate), token),
        (
            "deadline" | "startBy" | "expiry" | "endsAt" | "releaseAt" | "withdrawableAt" | "since"
            | "from" | "to",
            Ok(at),
        ) if at > 0 => day(u64::try_from(at).unwrap_or(u64::MAX)),
        (
            "lock" | "maxLock" | "grace" | "full" | "response" | "notice" | "startWithin"
            | "duration",
            Ok(secs),
        ) => span(u64::try_from(secs).unwrap_or(u64::MAX)),
        ("reason", Ok(number)) => {
            let reason =
                u8::try_from(number).ok().and_then(|number| CloseReason::try_from(number).ok());
            reason.map_or_else(|| text.to_owned(), |reason| format!("\u{201c}{reason}\u{201d}"))
        }
        _number if text.len() > 20 && text.bytes().all(|byte| byte.is_ascii_digit()) => short(text),
        _plain => clean(text, 80),
    };
    format!("{} {said}", words_of(name))
}

/// `startBy` as `start by`.
fn words_of(name: &str) -> String {
    let words = self::name(name);
    if words.ends_with("MiB") { words } else { words.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for (given, wanted) in [
            ("Opened", "Opened"),
            ("StreamOpened", "Stream opened"),
            ("memoryMiB", "memory MiB"),
            ("", ""),
        ] {
            assert_eq!(name(given), wanted);
        }
    }

    #[test]
    fn numbers_are_told_in_their_units() {
        let token = Token { symbol: "USD".into(), decimals: 6 };
        for (args, wanted) in [
            (r#"{"amount":"2500000"}"#, "amount 2.50 USD"),
            (r#"{"rate":"3472222222"}"#, "rate 0.0125 USD/h"),
            (r#"{"startBy":1700000000}"#, "start by 2023-11-14 22:13"),
            (r#"{"lock":3600}"#, "lock 1 h"),
            (r#"{"reason":1}"#, "reason \u{201c}its payer is done with it\u{201d}"),
            (r#"{"reason":200}"#, "reason 200"),
            (r#"{"r#ref":"7"}"#, "ref 7"),
            (r#"{"memoryMiB":"512"}"#, "memory MiB 512"),
            (r#"{"id":"115792089237316195423570985008687907853"}"#, "id 11579208…7853"),
            (r#"{"allowed":true,"order":{"slot":3,"all":[1,2]}}"#, "allowed: yes, 2 all, slot 3"),
            (r#"{"id":1,"quote":{"id":1}}"#, "id 1"),
            (r#"{"uri":"\u202e<b>"}"#, "uri \u{fffd}<b>"),
            ("no JSON", ""),
        ] {
            assert_eq!(arguments(&token, args), wanted, "{args}");
        }
    }
}
