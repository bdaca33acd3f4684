//! Curves as SVG.

use std::borrow::Cow;

use fastclip_pages::{count, escaped, measure, percent};

use super::figures::short_count;

/// A curve.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: Cow<'static, str>,
    /// `(step, value)`, steps ascending; or samples seen in place of steps. Values that are not finite are left out.
    pub(super) points: Vec<(f64, f64)>,
}

/// How values are worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Fractions, shown as percentages on an axis from zero.
    Fraction,
    /// Anything else, on an axis that fits the data.
    Measure,
}

/// How densely a curve was measured, which decides how it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Density {
    /// A few values, each shown as a point.
    Sparse,
    /// Many noisy values: the curve is their running mean, with the values themselves faintly behind it.
    Noisy,
    /// Many values of a smooth function.
    Smooth,
}

/// What a chart runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    /// The steps of one run.
    Steps,
    /// The samples that runs have seen, whatever their batches.
    Samples,
}

impl Along {
    /// The name of one of them, and of all.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Steps => ("step", "training steps"),
            Self::Samples => ("samples seen", "samples seen"),
        }
    }
}

/// A chart over a training run, or several.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) density: Density,
    /// Whether it takes two columns of the page.
    pub(super) is_wide: bool,
    /// At most [`NUM_COLOURS`].
    pub(super) series: Vec<Series>,
    pub(super) along: Along,
    /// A dashed line to compare with, in the same unit.
    pub(super) reference: Option<(&'static str, f64)>,
}

/// Curves that a chart tells apart: the colours of the page.
pub(super) const NUM_COLOURS: usize = 8;

/// Widths of a chart over one and over two columns of the page. Near what they are on a screen, so that text is drawn in
/// the size that it was given.
const NARROW: f64 = 360.0;
const WIDE: f64 = 752.0;
const HEIGHT: f64 = 196.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 36.0;

/// More points than this are averaged in groups: a curve has no more pixels than that.
const MAX_POINTS: usize = 400;

impl Chart {
    /// Draws the chart, or nothing if it has no finite value.
    pub(super) fn to_html(&self) -> String {
        let series: Vec<(&str, Vec<(f64, f64)>)> = self.series.iter().map(Series::finite).collect();
        let all = || series.iter().flat_map(|(_, points)| points.iter());
        let Some(first) = all().map(|point| point.0).reduce(f64::min) else { return String::new() };
        let last = all().map(|point| point.0).reduce(f64::max).unwrap_or(first);
        let low =
            all().map(|point| point.1).chain(self.reference.map(|line| line.1)).fold(f64::INFINITY, f64::min);
        let high =
            all().map(|point| point.1).chain(self.reference.map(|line| line.1)).fold(f64::MIN, f64::max);
        let width = if self.is_wide { WIDE } else { NARROW };
        let y = match self.unit {
            Unit::Fraction => Axis::fit(0.0, high, 5),
            Unit::Measure => Axis::fit(low, high, 5),
        };
        // The horizontal axis ends where the data does; only the vertical one is rounded outwards. It starts with the run,
        // so that the charts of a page can be compared, unless the data starts much later.
        let start = if first < 0.3 * last { 0.0 } else { first.min(last - 1.0) };
        let x = Axis { low: start, high: last, ..Axis::fit(start, last, if self.is_wide { 12 } else { 7 }) };
        let place = |&(step, value): &(f64, f64)| {
            let right = LEFT + x.fraction(step) * (width - LEFT - RIGHT);
            let down = HEIGHT - BOTTOM - y.fraction(value) * (HEIGHT - TOP - BOTTOM);
            (right, down)
        };

        let mut body = String::new();
        for value in y.ticks() {
            let (_, down) = place(&(x.low, value));
            body += &format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{down:.1}\" y2=\"{down:.1}\"/>\
                 <text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                width - RIGHT,
                LEFT - 8.0,
                down + 4.0,
                self.tick(value, y.step)
            );
        }
        for value in x.ticks() {
            let (right, _) = place(&(value, y.low));
            body += &format!(
                "<text class=\"tick\" x=\"{right:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\n",
                HEIGHT - BOTTOM + 18.0,
                short_count(value.max(0.0) as u64)
            );
        }
        if let Some((_, value)) = self.reference {
            let (_, down) = place(&(x.low, value));
            body += &format!(
                "<line class=\"reference\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{down:.1}\" y2=\"{down:.1}\"/>\n",
                width - RIGHT
            );
        }
        for (number, (name, points)) in series.iter().enumerate() {
            let points = thinned(points);
            let line = match self.density {
                Density::Noisy => {
                    body += &polyline(&format!("raw c{number}"), points.iter().map(place));
                    smoothed(&points)
                }
                Density::Sparse | Density::Smooth => points,
            };
            body += &polyline(&format!("curve c{number}"), line.iter().map(place));
            if self.density == Density::Sparse {
                for point in &line {
                    let (right, down) = place(point);
                    body += &format!(
                        "<circle class=\"point c{number}\" cx=\"{right:.1}\" cy=\"{down:.1}\" r=\"3.5\">\
                         <title>{} at {} {}: {}</title></circle>\n",
                        escaped(name),
                        self.along.words().0,
                        count(point.0 as u64),
                        self.value(point.1)
                    );
                }
            }
        }
        let bottom = HEIGHT - 4.0;
        let middle = LEFT + (width - LEFT - RIGHT) / 2.0;
        let (one, all) = self.along.words();
        format!(
            "<figure class=\"chart{span}\"><figcaption><h3>{title}</h3><ul class=\"legend\">{legend}</ul></figcaption>\n\
             <svg viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{title} over {all}\">\n{body}\
             <text class=\"tick\" x=\"{middle:.0}\" y=\"{bottom:.0}\" text-anchor=\"middle\">{one}</text>\n\
             </svg></figure>\n",
            span = if self.is_wide { " wide" } else { "" },
            title = escaped(self.title),
            legend = self.legend(&series)
        )
    }

    /// Names each curve with its last value, so that the figure can be read without hovering over it.
    fn legend(&self, series: &[(&str, Vec<(f64, f64)>)]) -> String {
        let mut legend = String::new();
        for (number, (name, points)) in series.iter().enumerate() {
            let points = if self.density == Density::Noisy { smoothed(points) } else { points.clone() };
            if let Some((_, value)) = points.last() {
                legend += &format!(
                    "<li><span class=\"swatch c{number}\"></span>{} <b>{}</b></li>",
                    escaped(name),
                    self.value(*value)
                );
            }
        }
        if let Some((name, value)) = self.reference {
            legend += &format!(
                "<li><span class=\"swatch dashed\"></span>{} <b>{}</b></li>",
                escaped(name),
                self.value(value)
            );
        }
        legend
    }

    fn value(&self, value: f64) -> String {
        match self.unit {
            Unit::Fraction => percent(value),
            Unit::Measure => measure(value),
        }
    }

    fn tick(&self, value: f64, step: f64) -> String {
        let (value, step, suffix) = match self.unit {
            Unit::Fraction => (100.0 * value, 100.0 * step, " %"),
            Unit::Measure => (value, step, ""),
        };
        if value == 0.0 {
            return format!("0{suffix}");
        }
        if !(0.000_99..10_000.0).contains(&step) {
            // As many digits as tell a mark from the next.
            let digits = (value.abs().log10().floor() - step.log10().floor()).max(0.0) as usize;
            return format!("{value:.digits$e}{suffix}");
        }
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        format!("{value:.decimals$}{suffix}")
    }
}

impl Series {
    fn finite(&self) -> (&str, Vec<(f64, f64)>) {
        (&self.name, self.points.iter().copied().filter(|point| point.1.is_finite()).collect())
    }
}

/// A stretch of numbers with round marks on it.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Covers `low..=high`, rounded outwards to about `num_ticks` steps of 1, 2 or 5 times a power of ten.
    fn fit(low: f64, high: f64, num_ticks: u32) -> Self {
        // A constant needs room around it: half its size, or one if it is zero.
        let (low, high) = match high - low {
            span if span > 1e-12 * high.abs() => (low, high),
            _ if high == 0.0 => (0.0, 1.0),
            _ => (high - 0.5 * high.abs(), high + 0.5 * high.abs()),
        };
        let rough = (high - low) / f64::from(num_ticks);
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|&step| step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        Self { low: (low / step + 1e-9).floor() * step, high: (high / step - 1e-9).ceil() * step, step }
    }

    fn fraction(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Returns the multiples of the step inside the axis.
    fn ticks(self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        (first..=last).map(move |number| number as f64 * self.step)
    }
}

/// Averages groups of neighbours until at most [`MAX_POINTS`] are left.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        let (steps, values) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (steps / count, values / count)
    };
    points.chunks(group).map(mean).collect()
}

/// Averages each value with its neighbours on both sides, so that the curve does not lag behind.
///
/// At the ends one side is missing. The mean is then of fewer values and a little late, which is better than a last value
/// that is pure noise: the legend shows it.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    let mean = |index: usize| {
        let window = &points[index.saturating_sub(reach)..(index + reach + 1).min(points.len())];
        (points[index].0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
    };
    (0..points.len()).map(mean).collect()
}

fn polyline(class: &str, points: impl Iterator<Item = (f64, f64)>) -> String {
    let points: Vec<String> = points.map(|(right, down)| format!("{right:.1},{down:.1}")).collect();
    format!("<polyline class=\"{class}\" points=\"{}\"/>\n", points.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let series = vec![Series { name: "loss".into(), points }];
        Chart {
            title: "Loss",
            unit: Unit::Measure,
            density: Density::Smooth,
            is_wide: false,
            series,
            along: Along::Steps,
            reference: None,
        }
    }

    #[test]
    fn axes_are_round_and_hold_all_values() {
        for (low, high) in
            [(0.0, 0.93), (2.13, 7.91), (1e-6, 5e-4), (0.07, 0.07), (0.0, 0.0), (-3.0, 12_345.0)]
        {
            let axis = Axis::fit(low, high, 5);
            assert!(
                axis.low <= low && axis.high >= high && axis.high > axis.low,
                "{axis:?} for {low}..{high}"
            );
            let num_ticks = axis.ticks().count();
            assert!((2..=8).contains(&num_ticks), "{num_ticks} ticks on {axis:?}");
        }
        let ticks: Vec<String> =
            Axis::fit(0.0, 0.93, 5).ticks().map(|value| chart(Vec::new()).tick(value, 0.2)).collect();
        assert_eq!(ticks, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!([0.0695, 0.07].map(|value| chart(Vec::new()).tick(value, 5e-4)), ["6.95e-2", "7.00e-2"]);
    }

    #[test]
    fn a_chart_without_finite_values_is_left_out() {
        assert_eq!(chart(Vec::new()).to_html(), "");
        assert_eq!(chart(vec![(1.0, f64::NAN)]).to_html(), "");
        assert!(chart(vec![(1.0, f64::NAN), (2.0, 3.0)]).to_html().contains("<b>3.00</b>"));
    }

    #[test]
    fn no_coordinate_is_ever_a_non_number() {
        for points in
            [vec![(5.0, 0.0)], vec![(5.0, 1.0), (5.0, 1.0)], (0..5000).map(|x| (x.into(), 1.0)).collect()]
        {
            let html = chart(points).to_html();
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
            assert!(html.len() < 20_000, "many points are thinned out: {} bytes", html.len());
        }
    }

    #[test]
    fn smoothing_neither_lags_behind_nor_ends_in_noise() {
        let line: Vec<_> = (0..200).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        for (point, mean) in line.iter().zip(smoothed(&line)).skip(5).take(190) {
            assert!((point.1 - mean.1).abs() < 1e-9, "{point:?} became {mean:?}");
        }
        let noise: Vec<_> = (0..200).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        assert!((smoothed(&noise)[199].1 - 0.5).abs() < 0.1);
    }
}
