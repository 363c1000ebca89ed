//! Graphs, as SVG that needs no script and takes its colours from the page.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

/// The size of a graph in the table, and of one on a page of its own, in its own units.
pub(super) const SMALL: (u32, u32) = (120, 28);
pub(super) const LARGE: (u32, u32) = (720, 160);

/// A line over time. Where nothing was seen it is broken. `most` is the top, if it is higher than every point.
pub(super) fn line(
    points: &[Option<f64>],
    most: f64,
    (width, height): (u32, u32),
    label: &str,
) -> Markup {
    let top = points.iter().flatten().copied().fold(most, f64::max).max(f64::MIN_POSITIVE);
    let (w, h) = (f64::from(width), f64::from(height));
    let step = w / (points.len().max(2) - 1) as f64;
    let mut path = String::new();
    let mut area = String::new();
    for run in runs(points) {
        let mut first = None;
        let mut last = 0.0;
        for (index, value) in run {
            let x = index as f64 * step;
            // Half a unit of room for the line's own width.
            let y = h - 0.5 - (value / top) * (h - 1.0);
            let command = if first.is_none() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{x:.1} {y:.1}");
            if first.is_none() {
                let _ = write!(area, "M{x:.1} {h}");
            }
            let _ = write!(area, "L{x:.1} {y:.1}");
            first = first.or(Some(x));
            last = x;
        }
        // A single point is a dash, also at the edge.
        if first == Some(last) {
            path.push_str("h-2");
        }
        let _ = write!(area, "L{last:.1} {h}Z");
    }
    html! {
        svg class="line" viewBox={ "0 0 " (width) " " (height) } preserveAspectRatio="none"
            role="img" aria-label=(label) {
            path class="area" d=(area) {}
            path class="stroke" d=(path) vector-effect="non-scaling-stroke" {}
        }
    }
}

/// The points that follow one another, with their places.
fn runs(points: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut runs: Vec<Vec<(usize, f64)>> = Vec::new();
    let mut open = false;
    for (index, point) in points.iter().enumerate() {
        match point {
            Some(value) => {
                if !open {
                    runs.push(Vec::new());
                }
                open = true;
                if let Some(run) = runs.last_mut() {
                    run.push((index, *value));
                }
            }
            None => open = false,
        }
    }
    runs
}

/// A bar for each value, which its title names.
pub(super) fn bars(values: &[(String, f64)], (width, height): (u32, u32), label: &str) -> Markup {
    let top = values.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let (w, h) = (f64::from(width), f64::from(height));
    let step = w / values.len().max(1) as f64;
    html! {
        svg class="bars" viewBox={ "0 0 " (width) " " (height) } preserveAspectRatio="none"
            role="img" aria-label=(label) {
            @for (index, (title, value)) in values.iter().enumerate() {
                @let size = (value / top) * (h - 2.0);
                @let size = if *value > 0.0 { size.max(1.0) } else { 0.0 };
                rect x=(format!("{:.1}", index as f64 * step + 1.0)) y=(format!("{:.1}", h - size))
                    width=(format!("{:.1}", (step - 2.0).max(1.0))) height=(format!("{size:.1}")) {
                    title { (title) }
                }
            }
            path class="axis" d=(format!("M0 {h}H{w}")) vector-effect="non-scaling-stroke" {}
        }
    }
}

/// How much of something is taken: one part after the other, each with its class.
pub(super) fn share(parts: &[(&str, f64)], whole: f64, label: &str) -> Markup {
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
        svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" role="img"
            aria-label=(label) {
            rect class="ground" x="0" y="0" width="100" height="8" {}
            @for rect in rects { (rect) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_where_nothing_was_seen() {
        let points = [Some(1.0), Some(2.0), None, Some(4.0)];
        let text = line(&points, 0.0, (30, 11), "use").into_string();
        assert!(text.contains(r#"d="M0.0 8.0L10.0 5.5M30.0 0.5h-2""#), "{text}");
        assert!(text.contains(r#"aria-label="use""#), "{text}");
        let none = line(&[None, None], 0.0, SMALL, "\"<none>\"").into_string();
        assert!(none.contains("&quot;&lt;none&gt;&quot;") && !none.contains("NaN"), "{none}");
    }

    #[test]
    fn bars_and_shares_stay_within() {
        let text =
            bars(&[("one".into(), 0.0), ("two".into(), 5.0)], (20, 12), "days").into_string();
        assert!(text.contains(r#"height="0.0""#) && text.contains(r#"height="10.0""#), "{text}");
        let text = share(&[("used", 3.0), ("kept", 3.0)], 4.0, "cpu").into_string();
        assert!(text.contains(r#"x="50.00" y="0" width="50.00""#), "{text}");
        assert!(!share(&[("used", 0.0)], 0.0, "none").into_string().contains("NaN"));
    }
}
