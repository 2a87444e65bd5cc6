//! Pictures of results: bars and lines on logarithmic scales, as SVG that needs no other file.

use std::fmt::Write;

use crate::results::readable;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 64.0;
const INK: &str = "#24292f";
const FAINT: &str = "#d8dee4";

/// A value of each of some peers.
pub(crate) type Values = Vec<(String, f64)>;

/// Peers keep their colour from picture to picture.
fn colour(peer: &str) -> &'static str {
    match peer.split(' ').next().unwrap_or_default() {
        "coracle" => "#0969da",
        "floor" => "#8c959f",
        "crun" => "#bf8700",
        "runc" => "#cf222e",
        _ => "#8250df",
    }
}

/// Bars of each group's values, one group below the other.
pub(crate) fn bars(title: &str, groups: &[(String, Values)]) -> String {
    const BAR: f64 = 12.0;
    const GAP: f64 = 12.0;
    let count: usize = groups.iter().map(|(_, values)| values.len()).sum();
    let bottom = TOP + count as f64 * BAR + groups.len() as f64 * GAP;
    let all = groups.iter().flat_map(|(_, values)| values);
    let scale = Scale::around(all.map(|(_, value)| *value), LEFT, WIDTH - RIGHT - 40.0);
    let mut svg = Svg::new(title, bottom + 30.0);
    for tick in scale.ticks() {
        let x = scale.at(tick);
        svg.line([x, TOP - 6.0], [x, bottom], FAINT);
        svg.text([x, bottom + 16.0], "middle", INK, &readable(tick));
    }
    let mut y = TOP;
    for (name, values) in groups {
        let middle = y + values.len() as f64 * BAR / 2.0 + 4.0;
        svg.text([LEFT - 10.0, middle], "end", INK, name);
        for (peer, value) in values {
            let end = scale.at(*value);
            let (width, height) = (end - LEFT, BAR - 2.0);
            let fill = colour(peer);
            let _ = writeln!(
                svg.0,
                r#"<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{height}" fill="{fill}"/>"#
            );
            svg.text([end + 4.0, y + BAR - 3.0], "start", INK, &readable(*value));
            y += BAR;
        }
        y += GAP;
    }
    svg.legend(
        groups
            .iter()
            .flat_map(|(_, values)| values)
            .map(|(peer, _)| peer.as_str()),
    );
    svg.end()
}

/// A line of each peer: how its value grows with a number.
pub(crate) fn lines(title: &str, of: &str, lines: &[(String, Vec<(usize, f64)>)]) -> String {
    const BOTTOM: f64 = 330.0;
    let points = || lines.iter().flat_map(|(_, points)| points);
    let left = 80.0;
    let across = Scale::around(points().map(|(x, _)| *x as f64), left, WIDTH - RIGHT);
    let up = Scale::around(points().map(|(_, y)| *y), BOTTOM, TOP);
    let mut svg = Svg::new(title, BOTTOM + 50.0);
    for tick in up.ticks() {
        let y = up.at(tick);
        svg.line([left, y], [WIDTH - RIGHT, y], FAINT);
        svg.text([left - 8.0, y + 4.0], "end", INK, &readable(tick));
    }
    for tick in across.ticks() {
        svg.text(
            [across.at(tick), BOTTOM + 18.0],
            "middle",
            INK,
            &readable(tick),
        );
    }
    svg.text(
        [(left + WIDTH - RIGHT) / 2.0, BOTTOM + 38.0],
        "middle",
        INK,
        of,
    );
    for (peer, points) in lines {
        let places = points
            .iter()
            .map(|(x, y)| (across.at(*x as f64), up.at(*y)));
        let path: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let stroke = colour(peer);
        let path = path.join(" ");
        let _ = writeln!(
            svg.0,
            r#"<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2"/>"#
        );
    }
    svg.legend(lines.iter().map(|(peer, _)| peer.as_str()));
    svg.end()
}

/// A logarithmic scale between two places.
struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// From the 1, 2 or 5 with zeroes below all values to the one above them.
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let marks = || marks(-9, 12);
        Self {
            least: marks().rfind(|mark| *mark <= low).unwrap_or(low),
            most: marks().find(|mark| *mark >= high).unwrap_or(high),
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value / self.least).ln() / (self.most / self.least).ln();
        self.from + part * (self.to - self.from)
    }

    /// At most nine: only powers of ten where there would be more.
    fn ticks(&self) -> Vec<f64> {
        let within = |mark: &f64| *mark >= self.least * 0.999 && *mark <= self.most * 1.001;
        let all: Vec<f64> = marks(-9, 12).filter(within).collect();
        match all.len() {
            ..=9 => all,
            _ => all
                .into_iter()
                .filter(|mark| mark.log10().fract().abs() < 1e-9)
                .collect(),
        }
    }
}

/// 1, 2 and 5 times powers of ten.
fn marks(from: i32, to: i32) -> impl DoubleEndedIterator<Item = f64> {
    (from..to).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
}

struct Svg(String);

impl Svg {
    fn new(title: &str, height: f64) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        ));
        let _ = writeln!(
            svg.0,
            r#"<text x="20" y="24" font-size="15" fill="{INK}">{title}</text>"#
        );
        svg
    }

    fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], stroke: &str) {
        let _ = writeln!(
            self.0,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{stroke}"/>"#
        );
    }

    fn text(&mut self, [x, y]: [f64; 2], anchor: &str, fill: &str, text: &str) {
        let _ = writeln!(
            self.0,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{fill}">{text}</text>"#
        );
    }

    fn legend<'a>(&mut self, peers: impl Iterator<Item = &'a str>) {
        let mut named: Vec<&str> = Vec::new();
        for peer in peers {
            if !named.contains(&peer) {
                let x = 20.0 + 120.0 * named.len() as f64;
                let fill = colour(peer);
                let _ = writeln!(
                    self.0,
                    r#"<rect x="{x}" y="36" width="10" height="10" fill="{fill}"/>"#
                );
                self.text([x + 15.0, 45.0], "start", INK, peer);
                named.push(peer);
            }
        }
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}
