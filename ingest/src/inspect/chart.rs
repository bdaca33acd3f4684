//! Histograms as SVG.

use fastclip_pages::{count, escaped, percent};

use crate::stats::Histogram;

/// Near what it is on a screen, so that text is drawn in the size that it was given.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 6.0;
const RIGHT: f64 = 6.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 24.0;

/// Wider columns look like areas.
const MAX_COLUMN: f64 = 46.0;

/// Room that a label needs, for each of its characters.
const CHAR: f64 = 7.0;

/// How often values fell into ranges.
pub(super) struct Columns<'a> {
    pub(super) title: &'a str,
    /// Words behind a value, for example `px`.
    pub(super) unit: &'a str,
    pub(super) histogram: &'a Histogram,
    /// How a value of the histogram reads on the axis.
    pub(super) label: fn(u64) -> String,
}

impl Columns<'_> {
    /// Draws the chart, or nothing if there are no values.
    pub(super) fn to_html(&self) -> String {
        let Histogram { up_to, counts, .. } = self.histogram;
        let (Some(min), Some(max), Some(mean)) =
            (self.histogram.min, self.histogram.max, self.histogram.mean())
        else {
            return String::new();
        };
        let first = counts.iter().position(|count| *count > 0).unwrap_or_default();
        let last = counts.iter().rposition(|count| *count > 0).unwrap_or_default();
        let shown = last + 1 - first;
        let most = counts.iter().copied().max().unwrap_or_default();
        let step = ((WIDTH - LEFT - RIGHT) / shown as f64).min(MAX_COLUMN);
        let start = (WIDTH - step * shown as f64) / 2.0;
        let mut body = String::new();
        let mut free_from = f64::MIN;
        for (place, range) in (first..=last).enumerate() {
            let left = start + step * place as f64;
            let share = counts[range] as f64 / self.histogram.num_values() as f64;
            let height = (HEIGHT - TOP - BOTTOM) * counts[range] as f64 / most.max(1) as f64;
            let top = HEIGHT - BOTTOM - height;
            let (words, tick) = match (range.checked_sub(1).map(|before| up_to[before]), up_to.get(range)) {
                (Some(before), Some(bound)) if before + 1 < *bound => (
                    format!("{} to {}", (self.label)(before + 1), (self.label)(*bound)),
                    (self.label)(*bound),
                ),
                (_, Some(bound)) => (format!("up to {}", (self.label)(*bound)), (self.label)(*bound)),
                (Some(before), None) => (format!("more than {}", (self.label)(before)), "more".to_owned()),
                (None, None) => ("any".to_owned(), String::new()),
            };
            body += &format!(
                "<g><title>{words} {unit}: {number}, {share}</title>\
                 <rect class=\"hit\" x=\"{left:.1}\" y=\"0\" width=\"{step:.1}\" height=\"{HEIGHT}\"/>\
                 <rect class=\"column\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\"/>",
                unit = escaped(self.unit),
                number = count(counts[range]),
                share = percent(share),
                x = left + 1.5,
                width = step - 3.0,
            );
            let middle = left + step / 2.0;
            if counts[range] > 0 {
                body += &format!(
                    "<text class=\"share\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    top - 5.0,
                    short_percent(share)
                );
            }
            body += "</g>";
            // Labels that would run into each other are left out.
            let half = CHAR * tick.chars().count() as f64 / 2.0;
            if middle - half >= free_from {
                free_from = middle + half + 4.0;
                body += &format!(
                    "<text class=\"tick\" x=\"{middle:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>\n",
                    HEIGHT - BOTTOM + 17.0
                );
            }
        }
        let label = |value: u64| (self.label)(value);
        format!(
            "<figure class=\"chart\"><figcaption><h3>{title}</h3><span class=\"summary\">{least} – {most}, mean <b>{mean}</b> \
             {unit}</span></figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
             <line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{base:.1}\" y2=\"{base:.1}\"/>\n{body}</svg></figure>\n",
            WIDTH - RIGHT,
            title = escaped(self.title),
            least = label(min),
            most = label(max),
            mean = label(mean.round() as u64),
            unit = escaped(self.unit),
            base = HEIGHT - BOTTOM + 0.5,
        )
    }
}

/// A bar and what it stands for, for tables.
pub(super) fn bar(share: f64, class: &str) -> String {
    format!(
        "<span class=\"meter {class}\" aria-hidden=\"true\"><span style=\"width:{:.2}%\"></span></span>",
        100.0 * share.clamp(0.0, 1.0)
    )
}

/// As few characters as a column has room for.
fn short_percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent < 0.5 { "<1".to_owned() } else { format!("{percent:.0}") }
}
