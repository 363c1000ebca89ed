//! What is looked at before a parser sees an expression: its size, how deep its brackets nest, and where its parts are.
//!
//! The parser recurses with brackets and builds a tree that is as deep as chains of operators are long, so both are bounded
//! here, by a loop. To know what is a bracket it has to be known what is text. Hence text is the plainest there is: no
//! backslash, no triple quotes. Comments, arithmetic, maps and `?:` are refused by their characters.

use super::ExpressionError;

/// The most bytes of an expression.
pub const LENGTH: usize = 512;

/// How deep brackets may nest.
pub const DEPTH: usize = 8;

/// How many words and signs may follow each other between `&&`, `||`, commas and brackets: `0.02 <= price` is six.
const CHAIN: usize = 8;

/// A part of an expression that has to hold for the whole to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    /// Where it begins in the whole, in bytes.
    pub(super) start: usize,
    /// Its text.
    pub(super) text: &'a str,
}

/// Checks the bounds, and cuts an expression at each `&&` that is in no bracket: what is between them has to hold each by
/// itself. An `||` outside of brackets binds weaker, so then there is one part.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, ExpressionError> {
    let fail = |at: usize, what: String| Err(ExpressionError { at: at + 1, what });
    if text.len() > LENGTH {
        let what =
            format!("the expression is {} bytes long, and {LENGTH} are the limit", text.len());
        return fail(LENGTH, what);
    }
    let bytes = text.as_bytes();
    let (mut open, mut chain, mut cuts, mut either) = (Vec::new(), 0, Vec::new(), false);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        match byte {
            b'"' | b'\'' => {
                let inner = bytes.get(at + 1..).unwrap_or_default();
                let Some(length) = inner.iter().position(|other| *other == byte) else {
                    return fail(at, "this text has no end; close its quotes".into());
                };
                let odd = |other: &u8| *other == b'\\' || !(b' '..=b'~').contains(other);
                if let Some(odd) = inner.iter().take(length).position(odd) {
                    let what = "text is printable ASCII without a backslash".into();
                    return fail(at + 1 + odd, what);
                }
                at += length + 1;
                if bytes.get(at + 1) == Some(&byte) {
                    return fail(at + 1, "one text ends here and another begins".into());
                }
            }
            b'(' | b'[' => {
                open.push(at);
                chain = 0;
                if open.len() > DEPTH {
                    return fail(at, format!("brackets nest deeper than {DEPTH}"));
                }
            }
            b')' | b']' => {
                chain = 0;
                if open.pop().is_none() {
                    return fail(at, "this closes a bracket that was not opened".into());
                }
            }
            b'&' | b'|' => {
                let sign = char::from(byte);
                if next != Some(byte) {
                    return fail(at, format!("a single {sign} means nothing; write {sign}{sign}"));
                }
                if open.is_empty() {
                    match byte {
                        b'&' => cuts.push(at),
                        _ => either = true,
                    }
                }
                chain = 0;
                at += 1;
            }
            b',' => chain = 0,
            b'.' | b'<' | b'>' | b'=' | b'!' => chain += 1,
            b' ' | b'\t' | b'\r' | b'\n' => (),
            _ if is_word(byte) => {
                let begins = at.checked_sub(1).and_then(|last| bytes.get(last));
                chain += usize::from(!begins.is_some_and(|last| is_word(*last)));
            }
            _ => {
                let odd = text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or('?');
                return fail(at, format!("{odd:?} has no place in an expression"));
            }
        }
        if chain > CHAIN {
            return fail(at, "this goes on for too long; join comparisons with && or ||".into());
        }
        at += 1;
    }
    if let Some(at) = open.pop() {
        return fail(at, "this bracket is not closed".into());
    }
    if either {
        cuts.clear();
    }
    let starts = std::iter::once(0).chain(cuts.iter().map(|cut| cut + 2));
    let ends = cuts.iter().copied().chain([text.len()]);
    let parts = starts.zip(ends).map(|(start, end)| {
        let whole = text.get(start..end).unwrap_or_default();
        let start = start + (whole.len() - whole.trim_start().len());
        Part { start, text: whole.trim() }
    });
    let parts: Vec<_> = parts.collect();
    match parts.iter().find(|part| part.text.is_empty()) {
        Some(_) if text.trim().is_empty() => {
            fail(0, "it is empty; leave it out for any provider".into())
        }
        Some(part) => fail(part.start.min(text.len()), "a condition is missing beside &&".into()),
        None => Ok(parts),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
