//! How things are written for people: amounts, times, and what strangers wrote.

use maud::{Markup, html};
use protocol::amount::{Amount, Rate, Token, Units};
use time::OffsetDateTime;

/// What a stranger wrote, so that it can only be read: no longer than `most` characters, and without those that steer a
/// terminal, turn the direction of what stands around them, or cannot be seen.
pub(super) fn clean(text: &str, most: usize) -> String {
    let visible = |c: char| match c {
        c if c.is_control() => '\u{fffd}',
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => {
            '\u{fffd}'
        }
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => '\u{fffd}',
        '\u{e0000}'..='\u{e0fff}' => '\u{fffd}',
        c => c,
    };
    let mut out: String = text.chars().take(most).map(visible).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// The same, set apart from what stands around it.
pub(super) fn foreign(text: &str, most: usize) -> Markup {
    let text = clean(text, most);
    html! { @if text.trim().is_empty() { "–" } @else { bdi { (text) } } }
}

/// An address on the web that a stranger gave: a link if it is plainly one, else text.
pub(super) fn outward(address: &str) -> Markup {
    let is_web = address.starts_with("https://") || address.starts_with("http://");
    let plain = address.len() <= 512 && address.bytes().all(|byte| byte.is_ascii_graphic());
    html! {
        @if is_web && plain {
            a href=(address) rel="nofollow noreferrer noopener" { (foreign(address, 120)) }
        } @else {
            (foreign(address, 120))
        }
    }
}

/// `0x123456…cdef` of what is too long to read.
pub(super) fn short(text: &str) -> String {
    let tail = text.get(text.len().saturating_sub(4)..).unwrap_or_default();
    format!("{}…{tail}", text.get(..8).unwrap_or_default())
}

/// An amount with its token.
pub(super) fn money(amount: Amount, token: &Token) -> String {
    format!("{} {}", amount.display(token), token.symbol)
}

/// What somebody has, rounded down.
pub(super) fn balance(units: Units, token: &Token) -> String {
    money(units.collectable(), token)
}

/// `0.0125 USD/h`.
pub(super) fn per_hour(rate: Rate, token: &Token) -> String {
    let text = rate.per_hour(token);
    let number = text.trim_end_matches("/h");
    // Whoever asks for that much does not mean to be read to the last digit.
    let number = match number.split('.').next().map_or(0, str::len) {
        0..=15 => number,
        _ => "over 10^15",
    };
    format!("{number} {}/h", token.symbol)
}

/// A price per hour, and below it per month.
pub(super) fn price(rate: Rate, token: &Token) -> Markup {
    html! {
        @if rate == Rate(0) { "nothing" }
        @else {
            (per_hour(rate, token))
            @let month = rate.per_month(token);
            @if month.len() < 20 { span class="small" { (month) } }
        }
    }
}

/// A span of time to two places: `1 h 30 min`.
pub(super) fn span(secs: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(31_536_000, "y"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = UNITS.iter().position(|(size, _)| secs >= *size) else {
        return "0 s".into();
    };
    let (size, name) = UNITS[first];
    let text = format!("{} {name}", secs / size);
    match UNITS.get(first + 1) {
        Some((next, name)) if secs / size < 10 && secs % size / next > 0 => {
            format!("{text} {} {name}", secs % size / next)
        }
        _ => text,
    }
}

/// How far a moment is from another: `3 min ago`.
pub(super) fn relative(at: u64, now: u64) -> String {
    let rounded = |secs: u64| match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        172_800..63_072_000 => format!("{} d", secs / 86_400),
        _ => format!("{} y", secs / 31_536_000),
    };
    match at.cmp(&now) {
        std::cmp::Ordering::Less => format!("{} ago", rounded(now - at)),
        std::cmp::Ordering::Equal => "just then".into(),
        std::cmp::Ordering::Greater => format!("in {}", rounded(at - now)),
    }
}

/// A moment: for machines, in UTC, and as far from `now` as it is.
pub(super) fn moment(at: u64, now: u64) -> Markup {
    let Some(date) = date(at) else { return html! { "never" } };
    let (day, clock) = (date.date(), date.time());
    let iso = format!("{day}T{:02}:{:02}:{:02}Z", clock.hour(), clock.minute(), clock.second());
    html! {
        time datetime=(iso) {
            (day) " " (format!("{:02}:{:02}:{:02}", clock.hour(), clock.minute(), clock.second())) " UTC"
            span class="small" { (relative(at, now)) }
        }
    }
}

/// A day, for the end of an axis.
pub(super) fn day(at: u64) -> String {
    date(at).map_or_else(
        || "never".into(),
        |date| format!("{} {:02}:{:02}", date.date(), date.hour(), date.minute()),
    )
}

/// Nothing beyond the year 9999: the contracts write "for ever" as their greatest number.
fn date(at: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_write_stays_text() {
        for (text, most, wanted) in [
            ("https://a.example", 40, "https://a.example"),
            ("a\u{202e}b\u{2066}c\u{200b}d", 40, "a\u{fffd}b\u{fffd}c\u{fffd}d"),
            ("a\0b\nc\u{1b}[2J", 40, "a\u{fffd}b\u{fffd}c\u{fffd}[2J"),
            ("ünï", 2, "ün…"),
            ("\u{e0041}", 4, "\u{fffd}"),
            ("", 4, ""),
        ] {
            assert_eq!(clean(text, most), wanted, "{text:?}");
        }
    }

    #[test]
    fn only_what_is_plainly_a_web_address_is_a_link() {
        for (text, is_link) in [
            ("https://a.example:8443/x?y=1", true),
            ("http://a.example", true),
            ("javascript:alert(1)", false),
            ("HTTPS://a.example", false),
            ("https://a.example/ x", false),
            ("https://ä.example", false),
            ("data:text/html,x", false),
            ("", false),
        ] {
            let shown = outward(text).into_string();
            assert_eq!(shown.contains("<a "), is_link, "{shown}");
        }
        let shown = outward("https://a.example/\"><script>").into_string();
        assert!(!shown.contains("<script>") && !shown.contains("\">\"<"), "{shown}");
        assert!(shown.contains("nofollow noreferrer noopener"), "{shown}");
    }

    #[test]
    fn times_are_read_at_a_glance() {
        for (secs, wanted) in [
            (0, "0 s"),
            (59, "59 s"),
            (90, "1 min 30 s"),
            (3_600, "1 h"),
            (90_000, "1 d 1 h"),
            (11 * 86_400 + 3_600, "11 d"),
            (u64::MAX, "584942417355 y"),
        ] {
            assert_eq!(span(secs), wanted);
        }
        assert_eq!(relative(100, 160), "60 s ago");
        assert_eq!(relative(7_300, 100), "in 2 h");
        let text = moment(1_700_000_000, 1_700_000_060).into_string();
        assert!(text.contains("datetime=\"2023-11-14T22:13:20Z\""), "{text}");
        assert!(text.contains("60 s ago"), "{text}");
        assert_eq!(moment(1_099_511_627_775, 0).into_string(), "never");
    }

    #[test]
    fn prices_are_per_hour() {
        let token = Token { symbol: "USD".into(), decimals: 6 };
        assert_eq!(per_hour(Rate(3_472_222_222), &token), "0.0125 USD/h");
        assert_eq!(per_hour(Rate(u128::MAX), &token), "over 10^15 USD/h");
        assert_eq!(balance(Units(1_999_999_999), &token), "0.000001 USD");
    }
}
