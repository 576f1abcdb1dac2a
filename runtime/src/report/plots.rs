//! Plots as SVG text, drawn with plotters; colours after Okabe and Ito, distinguishable without red and green.

use plotters::prelude::*;

/// A line of a plot.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Vertical bars: position, low, high.
    pub bars: Vec<(f64, f64, f64)>,
    /// Index of the colour: the same name has the same colour in every plot of a page.
    pub colour: usize,
    /// Small circles at the points, for scores; without for losses.
    pub marked: bool,
}

pub struct Plot<'a> {
    /// The labels of the axes.
    pub across: &'a str,
    pub up: &'a str,
    pub lines: Vec<Line>,
    /// Vertical lines with a name: the starts of stages.
    pub seams: Vec<(f64, String)>,
}

const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
    RGBColor(240, 228, 66),
];

fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if !low.is_finite() || !high.is_finite() {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.05).max(1e-3);
    (low - margin)..(high + margin)
}

/// A plot cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a plot: {0}")]
pub struct PlotError(String);

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for PlotError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

/// Draws the plot as an `<svg>` element, which fills the available width.
///
/// # Errors
/// Drawing fails.
pub fn draw(plot: &Plot<'_>) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (860, 380)).into_drawing_area();
        root.fill(&WHITE)?;
        let all = || plot.lines.iter().flat_map(|line| &line.points);
        let across = range(all().map(|point| point.0));
        let bars = plot.lines.iter().flat_map(|line| &line.bars);
        let up = range(all().map(|point| point.1).chain(bars.flat_map(|bar| [bar.1, bar.2])));
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(across.start.max(0.0)..across.end, up.clone())?;
        chart
            .configure_mesh()
            .x_desc(plot.across)
            .y_desc(plot.up)
            .x_label_formatter(&|value| short(*value))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()?;
        for (at, name) in &plot.seams {
            let style = ShapeStyle::from(&RGBColor(90, 90, 90)).stroke_width(1);
            chart.draw_series(std::iter::once(PathElement::new(
                vec![(*at, up.start), (*at, up.end)],
                style,
            )))?;
            let label = Text::new(format!(" {name}"), (*at, up.end), ("sans-serif", 13).into_font());
            chart.draw_series(std::iter::once(label))?;
        }
        for line in &plot.lines {
            let colour = COLOURS[line.colour % COLOURS.len()];
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
            let upright = |&(at, low, high): &(f64, f64, f64)| PathElement::new(vec![(at, low), (at, high)], colour);
            let bars = line.bars.iter().map(upright);
            chart.draw_series(bars)?;
            if line.marked {
                let circles = line.points.iter().map(|&point| Circle::new(point, 3, colour.filled()));
                chart.draw_series(circles)?;
            }
        }
        if plot.lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.8))
                .border_style(RGBColor(200, 200, 200))
                .draw()?;
        }
        root.present()?;
    }
    Ok(svg.replacen("width=\"860\" height=\"380\"", "class=\"plot\" role=\"img\"", 1))
}

/// 1500000 → 1.5M.
pub fn short(value: f64) -> String {
    let scaled = |by: f64, unit: &str| format!("{}{unit}", (value / by * 100.0).round() / 100.0);
    match value.abs() {
        size if size >= 1e12 => scaled(1e12, "T"),
        size if size >= 1e9 => scaled(1e9, "B"),
        size if size >= 1e6 => scaled(1e6, "M"),
        size if size >= 1e3 => scaled(1e3, "K"),
        _ => scaled(1.0, ""),
    }
}
