//! What people and programs get to see: tables and sentences, or JSON.

use std::io::Write as _;

use alloy::primitives::{Address, aliases::U40};
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use protocol::{
    amount::{Rate, Token},
    resources::PriceBreakdown,
};
use serde::Serialize;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Prints `value` as JSON if that was asked for, else `text`.
pub(crate) fn show(
    json: bool,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(value)? } else { text() };
    Ok(print(&text)?)
}

/// Prints a line, or several. Not `println!`, which panics when a reader such as `head` has had enough.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A table that fits the terminal; without one, each row is a line.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let is_address = |cell: &String| cell.parse::<Address>().is_ok();
    let whole: Vec<bool> = (0..header.len())
        .map(|column| rows.first().and_then(|row| row.get(column)).is_some_and(is_address))
        .collect();
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied())
        .add_rows(rows);
    for (column, whole) in table.column_iter_mut().zip(whole) {
        column.set_padding((0, 2));
        // In parts an address is no use to anybody.
        if whole {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A table whose columns in `spare` are left out, one after the other, as far as the terminal is too narrow for all.
pub(crate) fn narrow_table(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    spare: &[usize],
) -> String {
    let width = Table::new().width().map_or(usize::MAX, usize::from);
    fitting(header, rows.into_iter().collect(), spare, width)
}

fn fitting(header: &[&str], rows: Vec<Vec<String>>, spare: &[usize], width: usize) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
            cells.chain([*title]).map(|cell| cell.chars().count() + 2).max().unwrap_or_default()
        })
        .collect();
    let mut kept: Vec<usize> = (0..header.len()).collect();
    for out in spare {
        let needed: usize = kept.iter().filter_map(|column| widths.get(*column)).sum();
        if needed > width {
            kept.retain(|column| column != out);
        }
    }
    let header: Vec<&str> = kept.iter().filter_map(|column| header.get(*column).copied()).collect();
    let rows = rows.iter().map(|row| {
        kept.iter().map(|column| row.get(*column).cloned().unwrap_or_default()).collect()
    });
    table(&header, rows)
}

/// The two largest units of a time: `3d 4h`.
pub(crate) fn span(secs: u64) -> String {
    let two = |large: u64, unit: &str, small: u64, rest: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{rest}"),
    };
    match secs {
        DAY.. => two(secs / DAY, "d", secs % DAY / HOUR, "h"),
        HOUR.. => two(secs / HOUR, "h", secs % HOUR / MINUTE, "m"),
        MINUTE.. => two(secs / MINUTE, "m", secs % MINUTE, "s"),
        _ => format!("{secs}s"),
    }
}

/// How long an account lasts at `now`; nothing runs where Payments says the end of time.
pub(crate) fn runway(funded_until: U40, now: u64) -> String {
    if funded_until == U40::MAX {
        return "nothing runs".into();
    }
    match funded_until.to::<u64>().checked_sub(now) {
        Some(0) | None => "dry".into(),
        Some(left) => format!("{} of runway", span(left)),
    }
}

/// A time, seen from `now`: `in 3d 4h`, `2m ago`, or `never` for the end of time.
pub(crate) fn moment(then: u64, now: u64) -> String {
    match then.checked_sub(now) {
        _ if then == U40::MAX.to::<u64>() => "never".into(),
        Some(0) => "just now".into(),
        Some(left) => format!("in {}", span(left)),
        None => format!("{} ago", span(now - then)),
    }
}

/// A rate per hour and per month: `0.0125/h (9.00/mo)`.
pub(crate) fn price(rate: Rate, token: &Token) -> String {
    format!("{} ({}) {}", rate.per_hour(token), rate.per_month(token), token.symbol)
}

/// What a price is for beside processor, memory and storage, to follow it: `, 0.50/h of it for GPUs`.
pub(crate) fn extras(price: &PriceBreakdown, token: &Token) -> String {
    let parts =
        [(price.egress, "egress"), (price.public_ports, "public ports"), (price.gpus, "GPUs")];
    let parts = parts.into_iter().filter(|(rate, _)| rate.0 > 0);
    let parts = parts.map(|(rate, what)| format!(", {} of it for {what}", rate.per_hour(token)));
    parts.collect()
}

/// Enough of an address to recognise it by.
pub(crate) fn short(address: Address) -> String {
    let text = address.to_string();
    format!("{}…{}", text.get(..8).unwrap_or_default(), text.get(38..).unwrap_or_default())
}

/// A failure with its causes, without those that the one before quotes anyway.
pub(crate) fn causes(err: &anyhow::Error) -> String {
    let mut all: Vec<String> = Vec::new();
    for cause in err.chain().map(ToString::to_string) {
        if !all.last().is_some_and(|last| last.contains(&cause)) {
            all.push(cause);
        }
    }
    let mut text = String::new();
    for (index, cause) in all.iter().enumerate() {
        let several = cause.contains('\n');
        text.push_str(match (index, several) {
            (0, _) => "",
            (_, false) => ": ",
            // A list of faults reads better below what they are faults of.
            (_, true) => ":\n  ",
        });
        text.push_str(&if several { cause.replace('\n', "\n  ") } else { cause.clone() });
    }
    text
}

/// Text from somebody else, made harmless for a terminal and cut to a bearable length.
pub(crate) fn tame(text: &str) -> String {
    const MOST: usize = 1_000;
    let mut tame: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        tame.push('…');
    }
    tame.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn times_read_well() {
        let check = |secs: u64, shown: &str| assert_eq!(span(secs), shown, "{secs}");
        check(0, "0s");
        check(59, "59s");
        check(60, "1m");
        check(61, "1m 1s");
        check(3_600, "1h");
        check(3_661, "1h 1m");
        check(3 * DAY + 4 * HOUR + 59, "3d 4h");
        check(DAY, "1d");
    }

    #[test]
    fn runways_read_well() {
        let check = |until: u64, shown: &str| assert_eq!(runway(U40::from(until), 100), shown);
        check(99, "dry");
        check(100, "dry");
        check(100 + DAY, "1d of runway");
        assert_eq!(runway(U40::MAX, 100), "nothing runs");
    }

    #[test]
    fn moments_read_well() {
        let check = |then: u64, shown: &str| assert_eq!(moment(then, 1_000), shown);
        check(1_061, "in 1m 1s");
        check(1_000, "just now");
        check(940, "1m ago");
        check(U40::MAX.to(), "never");
    }

    #[test]
    fn tables_are_plain_and_aligned() {
        let rows = [vec!["7".into(), "shop".into()], vec!["123".into(), "é".into()]];
        expect![[r#"
            LEASE  APP
            7      shop
            123    é"#]]
        .assert_eq(&table(&["LEASE", "APP"], rows));
    }

    #[test]
    fn a_narrow_table_leaves_columns_out_and_addresses_whole() {
        let address = Address::repeat_byte(0xab).to_string();
        let rows = || vec![vec![address.clone(), "eu".into(), "0.02/h".into(), "500.00".into()]];
        let header = ["PROVIDER", "REGION", "CPU", "BOND"];
        let check = |width: usize, wanted: &str| {
            let text = fitting(&header, rows(), &[3, 2], width);
            let first: Vec<_> =
                text.lines().next().unwrap_or_default().split_whitespace().collect();
            assert_eq!(first.join(" "), wanted, "{width}");
            assert!(text.contains(&address), "{text}");
        };
        check(80, "PROVIDER REGION CPU BOND");
        check(60, "PROVIDER REGION CPU");
        check(52, "PROVIDER REGION");
        check(10, "PROVIDER REGION");
    }

    #[test]
    fn prices_read_well() {
        let token = Token { symbol: "USD".into(), decimals: 6 };
        let rate = Rate::parse("0.0125/h", &token).unwrap();
        assert_eq!(price(rate, &token), "0.0125/h (9.00/mo) USD");
        let parts = PriceBreakdown { cpu: rate, ..PriceBreakdown::default() };
        assert_eq!(extras(&parts, &token), "");
        let parts = PriceBreakdown { egress: rate, gpus: rate, ..parts };
        let words = ", 0.0125/h of it for egress, 0.0125/h of it for GPUs";
        assert_eq!(extras(&parts, &token), words);
    }

    #[test]
    fn addresses_are_cut_in_the_middle() {
        assert_eq!(short(Address::repeat_byte(0xab)), "0xABaBaB…ABaB");
    }

    #[test]
    fn causes_are_told_once() {
        let err = anyhow::anyhow!("refused").context("connect: refused").context("no answer");
        assert_eq!(causes(&err), "no answer: connect: refused");
        let err = anyhow::anyhow!("a: wrong\nb: wrong").context("x.yaml is wrong");
        assert_eq!(causes(&err), "x.yaml is wrong:\n  a: wrong\n  b: wrong");
    }

    #[test]
    fn other_peoples_text_moves_no_cursor() {
        assert_eq!(tame("\u{1b}[2Jgone\nnext"), "[2Jgone next");
        assert_eq!(tame(&"x".repeat(2_000)).chars().count(), 1_001);
    }
}
