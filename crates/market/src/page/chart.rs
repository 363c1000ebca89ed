//! Graphs, as SVG that needs no script and takes its colours from the page. Each says in words what it shows; words on an
//! axis are the page's, since a drawing is stretched to the width that there is.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

/// The size of a drawing, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 160.0;

/// What a drawing is called, and what is to be seen on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    /// Names the drawing on its page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) desc: &'a str,
}

/// A stretch of time that a drawing shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Span {
    fn x(self, at: u64) -> f64 {
        let whole = self.to.saturating_sub(self.from).max(1) as f64;
        at.clamp(self.from, self.to.max(self.from)).saturating_sub(self.from) as f64 / whole * WIDTH
    }
}

fn drawing(words: &Words<'_>, class: &str, height: f64, inside: &Markup) -> Markup {
    let (title, desc) = (format!("{}-title", words.id), format!("{}-desc", words.id));
    html! {
        svg class=(class) viewBox={ "0 0 " (WIDTH) " " (height) } preserveAspectRatio="none" role="img"
            aria-labelledby=(title) aria-describedby=(desc) {
            title id=(title) { (words.title) }
            desc id=(desc) { (words.desc) }
            (inside)
        }
    }
}

/// What a value was from each moment on, from nothing at the bottom up to `most` or the greatest. The last one holds
/// `until` then. With `marks`, each moment has a dot.
pub(super) fn steps(
    points: &[(u64, f64)],
    span: Span,
    until: u64,
    most: f64,
    marks: bool,
    words: &Words<'_>,
) -> Markup {
    let top = points.iter().map(|(_, value)| *value).fold(most, f64::max).max(f64::MIN_POSITIVE);
    // Room for the line's own width and the dots'.
    let y = |value: f64| HEIGHT - 4.0 - value / top * (HEIGHT - 8.0);
    let (mut path, mut area, mut dots) = (String::new(), String::new(), String::new());
    let mut last = None;
    for (at, value) in points {
        let (x, y) = (span.x(*at), y(*value));
        let _ = match last {
            None => write!(path, "M{x:.1} {y:.1}"),
            Some(_) => write!(path, "H{x:.1}V{y:.1}"),
        };
        let _ = match last {
            None => write!(area, "M{x:.1} {HEIGHT}V{y:.1}"),
            Some(_) => write!(area, "H{x:.1}V{y:.1}"),
        };
        // A dot is a line without a length and with round ends, as a circle would be stretched.
        let _ = write!(dots, "M{x:.1} {y:.1}h0");
        last = Some(x);
    }
    if last.is_some() {
        let end = span.x(until);
        let _ = write!(path, "H{end:.1}");
        let _ = write!(area, "H{end:.1}V{HEIGHT}Z");
    }
    let limit = (most > 0.0).then(|| y(most));
    drawing(
        words,
        "graph",
        HEIGHT,
        &html! {
            path class="area" d=(area) {}
            @if let Some(y) = limit { path class="limit" d=(format!("M0 {y:.1}H{WIDTH}")) vector-effect="non-scaling-stroke" {} }
            path class="stroke" d=(path) vector-effect="non-scaling-stroke" {}
            @if marks { path class="dots" d=(dots) vector-effect="non-scaling-stroke" {} }
        },
    )
}

/// A value that falls evenly from the beginning to nothing at `ends`, above a floor that it does not go below.
pub(super) fn falling(value: f64, floor: f64, ends: u64, span: Span, words: &Words<'_>) -> Markup {
    let top = value.max(floor).max(f64::MIN_POSITIVE);
    let y = |value: f64| HEIGHT - 4.0 - value / top * (HEIGHT - 8.0);
    let (from, to, end) = (y(value), y(0.0), span.x(ends));
    let line = format!("M0 {from:.1}L{end:.1} {to:.1}");
    drawing(
        words,
        "graph",
        HEIGHT,
        &html! {
            path class="area" d=(format!("{line}L0 {to:.1}Z")) {}
            @if floor > 0.0 {
                path class="limit" d=(format!("M0 {0:.1}H{WIDTH}", y(floor))) vector-effect="non-scaling-stroke" {}
            }
            path class="stroke" d=(line) vector-effect="non-scaling-stroke" {}
        },
    )
}

/// A bar for each value, from the left; none higher than `most`, which is where those end that are.
pub(super) fn bars(values: &[f64], most: f64, words: &Words<'_>) -> Markup {
    let most = most.max(f64::MIN_POSITIVE);
    let step = WIDTH / values.len().max(1) as f64;
    drawing(
        words,
        "graph",
        HEIGHT,
        &html! {
            @for (index, value) in values.iter().enumerate() {
                @let size = (value / most * HEIGHT).clamp(1.0, HEIGHT);
                rect class=(if *value > most { "kept" } else { "used" }) x=(format!("{:.1}", (index as f64 + 0.1) * step))
                    y=(format!("{:.1}", HEIGHT - size)) width=(format!("{:.1}", (step * 0.8).max(0.5)))
                    height=(format!("{size:.1}")) {}
            }
        },
    )
}

/// What happened when, one stretch of time above the other where they overlap.
pub(super) fn timeline(parts: &[(&str, Span)], span: Span, words: &Words<'_>) -> Markup {
    drawing(
        words,
        "times",
        24.0,
        &html! {
            rect class="ground" x="0" y="0" width=(WIDTH) height="24" {}
            @for (class, part) in parts {
                @let (from, to) = (span.x(part.from), span.x(part.to));
                rect class=(class) x=(format!("{from:.1}")) y="0" width=(format!("{:.1}", (to - from).max(2.0))) height="24" {}
            }
        },
    )
}

/// How much of something is taken: one part after the other, each with its class. Only to look at: the numbers stand
/// beside it.
pub(super) fn share(parts: &[(&str, f64)], whole: f64) -> Markup {
    let whole = whole.max(parts.iter().map(|(_, part)| part).sum()).max(f64::MIN_POSITIVE);
    let mut at = 0.0;
    let rects = parts.iter().map(|(class, part)| {
        let (from, width) = (at, part / whole * 100.0);
        at += width;
        PreEscaped(format!(
            r#"<rect class="{class}" x="{from:.2}" y="0" width="{width:.2}" height="8"/>"#
        ))
    });
    html! {
        svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect class="ground" x="0" y="0" width="100" height="8" {}
            @for rect in rects { (rect) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words<'_> = Words { id: "x", title: "<t>", desc: "\"d\"" };

    #[test]
    fn a_step_holds_until_the_next() {
        let span = Span { from: 100, to: 200 };
        let text = steps(&[(100, 4.0), (150, 2.0)], span, 200, 0.0, true, &WORDS).into_string();
        assert!(text.contains(r#"d="M0.0 4.0H360.0V80.0H720.0""#), "{text}");
        assert!(text.contains(r#"d="M0.0 4.0h0M360.0 80.0h0""#), "{text}");
        assert!(text.contains("&lt;t&gt;") && text.contains("&quot;d&quot;"), "{text}");
        assert!(!text.contains("limit"), "{text}");
        // Nothing leaves the drawing, whatever the times and values are.
        for (points, span) in [
            (vec![], Span { from: 0, to: 0 }),
            (vec![(0, 0.0), (u64::MAX, f64::MAX)], Span { from: 5, to: 3 }),
            (vec![(7, u128::MAX as f64)], Span { from: 7, to: 7 }),
        ] {
            let text = steps(&points, span, u64::MAX, 1.0, true, &WORDS).into_string();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn parts_stay_within_the_whole() {
        let text = share(&[("used", 3.0), ("kept", 3.0)], 4.0).into_string();
        assert!(text.contains(r#"x="50.00" y="0" width="50.00""#), "{text}");
        assert!(!share(&[("used", 0.0)], 0.0).into_string().contains("NaN"));
        let text = bars(&[1.0, 8.0], 4.0, &WORDS).into_string();
        assert!(text.contains(r#"y="120.0""#) && text.contains(r#"class="kept""#), "{text}");
        assert!(text.contains(r#"y="0.0""#), "{text}");
        let span = Span { from: 0, to: 100 };
        let text = timeline(&[("used", Span { from: 50, to: 1_000 })], span, &WORDS).into_string();
        assert!(text.contains(r#"x="360.0" y="0" width="360.0""#), "{text}");
        let text = falling(8.0, 4.0, 50, span, &WORDS).into_string();
        assert!(text.contains(r#"d="M0 4.0L360.0 156.0""#), "{text}");
        assert!(text.contains(r#"d="M0 80.0H720""#), "{text}");
    }
}
