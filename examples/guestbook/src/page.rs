//! The HTML.

use std::fmt::{self, Write as _};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::book::{Entry, MAX_NAME, MAX_TEXT};

const TITLE: &str = "The guestbook";

/// Text, shown as text whatever is in it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A time, for people and for programs.
struct When(i64);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(at) = OffsetDateTime::from_unix_timestamp(self.0) else { return Ok(()) };
        let exact = at.format(&Rfc3339).map_err(|_err| fmt::Error)?;
        let (day, month, year) = (at.day(), at.month(), at.year());
        let (hour, minute) = (at.hour(), at.minute());
        write!(
            f,
            "<time datetime=\"{exact}\">{day} {month} {year}, {hour:02}:{minute:02} UTC</time>"
        )
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, text) = (Escaped(&self.name), Escaped(&self.text));
        write!(
            f,
            "<li>\n<p class=\"text\" dir=\"auto\">{text}</p>\n\
             <p class=\"by\"><b dir=\"auto\">{name}</b> {}</p>\n</li>\n",
            When(self.at)
        )
    }
}

/// The book, with a form to sign it.
pub(crate) fn book(newest: &[Entry], total: usize, token: &str) -> String {
    let list: String = newest.iter().map(ToString::to_string).collect();
    let signed = match total {
        0 => "Nobody has signed yet. Be the first.".to_owned(),
        1 => "One visitor has signed.".to_owned(),
        all if all > newest.len() => {
            format!("{all} visitors have signed; these are the last {}.", newest.len())
        }
        all => format!("{all} visitors have signed."),
    };
    let token = Escaped(token);
    document(&format!(
        r#"<form method="post" action="/sign">
<input type="hidden" name="token" value="{token}">
<label for="name">Your name</label>
<input id="name" name="name" required maxlength="{MAX_NAME}" autocomplete="nickname">
<label for="text">A few words</label>
<textarea id="text" name="text" required maxlength="{MAX_TEXT}" rows="3"></textarea>
<button>Sign the book</button>
</form>
<h2>{signed}</h2>
<ol reversed>
{list}</ol>"#
    ))
}

/// Why something was not done.
pub(crate) fn refusal(why: &str) -> String {
    let mut letters = why.chars();
    let why: String =
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let why = Escaped(&why);
    document(&format!("<p class=\"refusal\">{why}.</p>\n<p><a href=\"/\">Back to the book</a></p>"))
}

fn document(main: &str) -> String {
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{TITLE}</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ctext y='13' font-size='13'%3E⚓%3C/text%3E%3C/svg%3E">
<link rel="stylesheet" href="/style.css">
</head>
<body>
<header>
<p class="mark" aria-hidden="true">⚓</p>
<h1>{TITLE}</h1>
<p>This page is at anchor on somebody’s machine. It runs there because a lease on a chain says so, and it is paid for by the second.</p>
</header>
<main>
{main}
</main>
<footer><a href="/api/entries">Entries as JSON</a></footer>
</body>
</html>
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, text: &str) -> Entry {
        Entry { at: 1_767_272_580, name: name.into(), text: text.into() }
    }

    #[test]
    fn what_visitors_write_is_text() {
        let evil = "<script>alert('1 & \"2\"')</script>";
        let shown = "&lt;script&gt;alert(&#39;1 &amp; &quot;2&quot;&#39;)&lt;/script&gt;";
        let html = book(&[entry(evil, evil)], 1, evil);
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches(shown).count(), 3, "{html}");
        assert!(refusal(evil).contains(shown));
    }

    #[test]
    fn entries_have_names_and_times() {
        let html = book(&[entry("Ada ⚓", "a\nb")], 1, "t");
        for part in [
            "One visitor has signed.",
            "<b dir=\"auto\">Ada ⚓</b>",
            ">a\nb</p>",
            "<time datetime=\"2026-01-01T13:03:00Z\">1 January 2026, 13:03 UTC</time>",
            "name=\"token\" value=\"t\"",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(book(&[], 0, "t").contains("Be the first"));
        assert!(book(&[entry("a", "b")], 7, "t").contains("7 visitors have signed; these are the"));
    }

    #[test]
    fn refusals_are_sentences() {
        assert!(refusal("the book is full").contains(">The book is full.</p>"));
    }
}
