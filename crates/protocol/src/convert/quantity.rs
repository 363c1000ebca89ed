//! Kubernetes' quantities: where Compose's `M` is 1024², theirs is a million, so plain bytes are written.

use crate::resources::{Bytes, Decimal, Inexact};

/// The bytes of `128Mi`, `1G`, `129e6` or `128974848000m`; rounded up.
pub(super) fn bytes(text: &str) -> Result<Bytes, String> {
    let not = || format!("{text:?} is no quantity such as 128Mi or 1G");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = Decimal::parse(number).ok_or_else(not)?;
    let scale = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "m" => return whole(&number, 1, 1_000, text),
        _ => {
            let power = unit.strip_prefix(['e', 'E']).ok_or_else(not)?;
            let power: u32 = power.trim_start_matches('+').parse().map_err(|_err| not())?;
            10_u64.checked_pow(power).ok_or_else(|| format!("{text:?} is too large"))?
        }
    };
    whole(&number, scale, 1, text)
}

/// `number × scale / parts`, rounded up.
fn whole(number: &Decimal, scale: u64, parts: u64, text: &str) -> Result<Bytes, String> {
    // The smallest part of a byte that a decimal of fifteen places can leave over is not worth a refusal.
    let fine = number.times(scale).map(|bytes| bytes.div_ceil(parts));
    fine.map(Bytes).map_err(|inexact| match inexact {
        Inexact::Fraction => format!("{text:?} is not a whole number of bytes"),
        Inexact::Overflow => format!("{text:?} is too large"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read() {
        let check = |text: &str, wanted: u64| assert_eq!(bytes(text).unwrap().0, wanted, "{text}");
        check("128M", 128_000_000);
        check("128Mi", 128 << 20);
        check("1G", 1_000_000_000);
        check("1.5Gi", 1_536 << 20);
        check("129e6", 129_000_000);
        check("129E6", 129_000_000);
        check("128974848000m", 128_974_848);
        check("1m", 1);
        check("64k", 64_000);
        check("1048576", 1_048_576);
        for bad in ["", "M", "1m2", "1KB", "1e99", "1.0000001", "-1Gi", "99999999P", "1K"] {
            bytes(bad).unwrap_err();
        }
    }
}
