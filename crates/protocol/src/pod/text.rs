//! Small languages inside a compose file's strings: variables, durations, command lines, env files.

use super::{
    limits,
    names::{Invalid, show},
};
use crate::resources::{Decimal, Inexact};

/// What a variable's name is looked up in.
pub(super) type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Expands `$NAME`, `${NAME}` with Compose's operators, and `$$`. `unset` hears of variables that are taken as empty.
pub(super) fn interpolate(
    text: &str,
    lookup: &Lookup<'_>,
    unset: &mut dyn FnMut(&str),
) -> Result<String, Invalid> {
    nested(text, lookup, unset, limits::NESTING)
}

/// As `interpolate`, for text inside variables that may go on `depth` deep.
fn nested(
    text: &str,
    lookup: &Lookup<'_>,
    unset: &mut dyn FnMut(&str),
    depth: usize,
) -> Result<String, Invalid> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if out.len() > limits::EXPANDED {
            let most = limits::EXPANDED;
            return Err(Invalid(format!("{} comes to more than {most} bytes", show(text))));
        }
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| {
                Invalid(format!("{} opens ${{ and does not close it", show(text)))
            })?;
            let (inner, tail) = after.split_at(end);
            let depth = depth.checked_sub(1).ok_or_else(|| {
                Invalid(format!("variables are nested more than {} deep", limits::NESTING))
            })?;
            out.push_str(&braced(inner, lookup, unset, depth)?);
            rest = tail.strip_prefix('}').unwrap_or_default();
        } else {
            let (name, tail) = after.split_at(name_length(after));
            if name.is_empty() {
                return Err(Invalid(format!(
                    "{} has a $ that is no variable; write $$ for a dollar sign",
                    show(text)
                )));
            }
            out.push_str(&lookup(name).unwrap_or_else(|| {
                unset(name);
                String::new()
            }));
            rest = tail;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the `}` is that closes an opened `${`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => (),
        }
        previous = c;
    }
    None
}

fn name_length(text: &str) -> usize {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    match text.starts_with(letter) {
        true => text.find(|c: char| !letter(c) && !c.is_ascii_digit()).unwrap_or(text.len()),
        false => 0,
    }
}

fn braced(
    inner: &str,
    lookup: &Lookup<'_>,
    unset: &mut dyn FnMut(&str),
    depth: usize,
) -> Result<String, Invalid> {
    let (name, rest) = inner.split_at(name_length(inner));
    let value = lookup(name);
    let (value, operator) = match rest.strip_prefix(':') {
        Some(operator) => (value.filter(|value| !value.is_empty()), operator),
        None => (value, rest),
    };
    let mut argument = operator.chars();
    let operator = argument.next();
    let argument = argument.as_str();
    match (operator, value) {
        _ if name.is_empty() => (),
        (None, value) if rest.is_empty() => {
            return Ok(value.unwrap_or_else(|| {
                unset(name);
                String::new()
            }));
        }
        (Some('-' | '?'), Some(value)) => return Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => return nested(argument, lookup, unset, depth),
        (Some('+'), None) => return Ok(String::new()),
        (Some('?'), None) => {
            let why = match nested(argument, lookup, unset, depth)? {
                why if why.is_empty() => "the file requires it".to_owned(),
                why => why,
            };
            return Err(Invalid(format!("variable {name} is not set: {why}")));
        }
        (Some(_) | None, _) => (),
    }
    Err(Invalid(format!(
        "{} is not a variable; write ${{NAME}}, ${{NAME:-default}} or ${{NAME:?message}}",
        show(&format!("${{{inner}}}"))
    )))
}

/// Reads `1h30m`, `1.5s` or `500ms` as milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<u64, Invalid> {
    let not = || Invalid(format!("{} is not a duration such as 30s, 1m30s or 500ms", show(text)));
    let mut total = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(not());
    }
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(not)?;
        let (number, tail) = rest.split_at(digits);
        let length = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(length);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(not()),
        };
        let part = Decimal::parse(number).ok_or_else(not)?.times(unit_ms).map_err(|inexact| {
            Invalid(match inexact {
                Inexact::Fraction => format!("{} is finer than a millisecond", show(text)),
                Inexact::Overflow => format!("{} is too long", show(text)),
            })
        })?;
        total = total
            .checked_add(part)
            .ok_or_else(|| Invalid(format!("{} is too long", show(text))))?;
        rest = tail;
    }
    Ok(total)
}

/// Splits a command line as a shell does.
///
/// Compose cuts a command off at an unquoted `;`, `&`, `|`, `<` or `>`, and the crates for shell words drop what follows
/// `#`; whoever writes those wants a shell, so here they are errors.
pub(super) fn words(text: &str) -> Result<Vec<String>, Invalid> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match chars.next() {
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some('\n') => (),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err(unfinished(text)),
                        },
                        Some(other) => word.push(other),
                        None => return Err(unfinished(text)),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => (),
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err(unfinished(text)),
            },
            ';' | '&' | '|' | '<' | '>' | '`' => return Err(shell(text, c)),
            '#' if word.is_none() => return Err(shell(text, c)),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn unfinished(text: &str) -> Invalid {
    Invalid(format!("{} ends inside a quotation", show(text)))
}

fn shell(text: &str, c: char) -> Invalid {
    Invalid(format!(
        "{} has a {c:?} that only a shell understands; quote it, or write [\"sh\", \"-c\", \"…\"]",
        show(text)
    ))
}

/// Reads an env file: a list of variables, `None` for those whose value the surroundings give. An error names its line.
pub(super) fn env_file(
    text: &str,
    raw: bool,
    lookup: &Lookup<'_>,
    unset: &mut dyn FnMut(&str),
) -> Result<Vec<(String, Option<String>)>, Invalid> {
    let mut variables: Vec<(String, Option<String>)> = Vec::new();
    let text = text.trim_start_matches('\u{feff}');
    let mut rest = text;
    while !rest.is_empty() {
        let number = text.len() - rest.len();
        let number = text.get(..number).unwrap_or_default().matches('\n').count() + 1;
        let here = |why: Invalid| Invalid(format!("line {number}: {}", why.0));
        let (line, tail) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = tail;
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            variables.push((exported(trimmed).to_owned(), None));
            rest = tail;
            continue;
        };
        let name = exported(name.trim()).trim_end().to_owned();
        let quoted = value.trim_start().starts_with(['\'', '"']) && !raw;
        let value = if quoted {
            // It may go on over further lines.
            let from = rest.get(line.len() - value.len()..).unwrap_or_default().trim_start();
            let (value, after) = unquote(from).map_err(here)?;
            let (end, tail) = after.split_once('\n').unwrap_or((after, ""));
            if let end @ [_, ..] = end.trim().as_bytes()
                && end.first() != Some(&b'#')
            {
                let end = String::from_utf8_lossy(end);
                return Err(here(Invalid(format!("{} follows the closing quote", show(&end)))));
            }
            rest = tail;
            value
        } else {
            rest = tail;
            match raw {
                true => Quoted::Literal(value.trim().to_owned()),
                false => Quoted::Expand(uncommented(value.trim()).to_owned()),
            }
        };
        let before = |name: &str| {
            let earlier = variables.iter().rev().find(|(known, _)| known == name);
            lookup(name).or_else(|| earlier.and_then(|(_, value)| value.clone()))
        };
        let value = match value {
            Quoted::Literal(value) => value,
            Quoted::Expand(value) => interpolate(&value, &before, unset).map_err(here)?,
        };
        variables.push((name, Some(value)));
    }
    Ok(variables)
}

fn exported(name: &str) -> &str {
    name.strip_prefix("export ").map_or(name, str::trim_start)
}

/// The value in front of a comment.
fn uncommented(value: &str) -> &str {
    let end = value.find(" #").or_else(|| value.starts_with('#').then_some(0));
    value.get(..end.unwrap_or(value.len())).unwrap_or(value).trim_end()
}

enum Quoted {
    Literal(String),
    Expand(String),
}

/// The value in the quotes with which `text` begins, and what follows them.
fn unquote(text: &str) -> Result<(Quoted, &str), Invalid> {
    let open = || Invalid("a quotation is opened and not closed".to_owned());
    if let Some(rest) = text.strip_prefix('\'') {
        let (inner, rest) = rest.split_once('\'').ok_or_else(open)?;
        return Ok((Quoted::Literal(inner.to_owned()), rest));
    }
    let mut inner = String::new();
    let mut chars = text.strip_prefix('"').unwrap_or(text).chars();
    loop {
        match chars.next().ok_or_else(open)? {
            '"' => return Ok((Quoted::Expand(inner), chars.as_str())),
            '\\' => match chars.next().ok_or_else(open)? {
                'n' => inner.push('\n'),
                'r' => inner.push('\r'),
                't' => inner.push('\t'),
                '$' => inner.push_str("$$"),
                c @ ('"' | '\\') => inner.push(c),
                c => inner.extend(['\\', c]),
            },
            c => inner.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_expand() {
        let check = |text: &str, wanted: Result<&str, &str>| {
            let got = interpolate(text, &lookup, &mut |_| ()).map_err(|err| err.to_string());
            assert_eq!(got, wanted.map(str::to_owned).map_err(str::to_owned), "{text}");
        };
        check("plain", Ok("plain"));
        check("$A${A}$$A", Ok("aa$A"));
        check("${NO:-d}${EMPTY:-d}${EMPTY-d}|", Ok("dd|"));
        check("${NO:-${A:-x}}}", Ok("a}"));
        check("${NO:-a{b}c}", Ok("a{bc}"));
        check("${A:+r}${NO:+r}${EMPTY:+r}${EMPTY+r}", Ok("rr"));
        check("$NO.", Ok("."));
        check("${A?}", Ok("a"));
        check("${NO:-${NO-${A:+${EMPTY:-deep}}}}", Ok("deep"));
        check("${NO:-${NO:?no ${A}}}", Err("variable NO is not set: no a"));
        let deep = "${NO:-".repeat(50_000) + &"}".repeat(50_000);
        check(&deep, Err("variables are nested more than 16 deep"));
        check("${NO?}", Err("variable NO is not set: the file requires it"));
        check("${EMPTY:?give $A}", Err("variable EMPTY is not set: give a"));
        check("${A", Err("\"${A\" opens ${ and does not close it"));
        check("5$", Err("\"5$\" has a $ that is no variable; write $$ for a dollar sign"));
        let not =
            "\"${A!}\" is not a variable; write ${NAME}, ${NAME:-default} or ${NAME:?message}";
        check("${A!}", Err(not));
        check("${}", Err(&not.replace("A!", "")));
        check("${A:}", Err(&not.replace('!', ":")));
    }

    #[test]
    fn durations_read() {
        let check = |text: &str, ms: u64| assert_eq!(milliseconds(text).unwrap(), ms, "{text}");
        check("5s", 5_000);
        check("1h30m", 5_400_000);
        check("1.5s", 1_500);
        check("1m500ms", 60_500);
        check("2d", 172_800_000);
        check("0", 0);
        for bad in ["", "5", "s", "5x", "1s5", "-1s", "0.0001s", "99999999999999999h", "1 s"] {
            milliseconds(bad).unwrap_err();
        }
    }

    #[test]
    fn command_lines_split() {
        let check =
            |text: &str, wanted: &[&str]| assert_eq!(words(text).unwrap(), wanted, "{text}");
        check("", &[]);
        check("a  b\tc", &["a", "b", "c"]);
        check(r#"sh -c "a && b" 'c d'e"#, &["sh", "-c", "a && b", "c de"]);
        check(r#"a\ b "\"\n" '' x#y"#, &["a b", r#""\n"#, "", "x#y"]);
        for bad in ["a && b", "a > b", "a #b", "'a", "a\\", "\"a\\", "a; b", "`a`"] {
            words(bad).unwrap_err();
        }
    }

    #[test]
    fn env_files_read() {
        let check = |text: &str, wanted: &[(&str, Option<&str>)]| {
            let got = env_file(text, false, &lookup, &mut |_| ()).unwrap();
            let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
            assert_eq!(got, wanted, "{text}");
        };
        check(
            "# c\n\nX=1\nexport Y = two words # c\n",
            &[("X", Some("1")), ("Y ", Some("two words"))].map(|(k, v)| (k.trim(), v)),
        );
        check(
            "X='$A # '\nY=\"$A\\n\\$A\" # c\nZ=$A$X",
            &[("X", Some("$A # ")), ("Y", Some("a\n$A")), ("Z", Some("a$A # "))],
        );
        check("BARE\nURL=http://x/#y", &[("BARE", None), ("URL", Some("http://x/#y"))]);
        check("PEM=\"a\n b\" # c\nX='1\n2'\n", &[("PEM", Some("a\n b")), ("X", Some("1\n2"))]);
        for bad in ["X='a", "X=\"a\nb", "X='a'b", "X=${", "X=\"a\\"] {
            env_file(bad, false, &lookup, &mut |_| ()).unwrap_err();
        }
        assert_eq!(
            env_file("X=\"$A\"", true, &lookup, &mut |_| ()).unwrap(),
            [("X".to_owned(), Some("\"$A\"".to_owned()))]
        );
    }
}
