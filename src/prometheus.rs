//! The text that Prometheus scrapes, version 0.0.4: the one place that knows its rules.

use std::fmt::{self, Write};

/// Writes metrics, each with its `# HELP` and `# TYPE`, and the same labels on every series.
///
/// Every method fails if the writer does, or if a label can't be one: its name is none
/// (`[a-zA-Z_][a-zA-Z0-9_]*`), begins with `__`, which Prometheus keeps for itself, or is there
/// twice. Then nothing of the metric is written: one bad line costs Prometheus the whole page.
pub(crate) struct Exposition<'a, W> {
    out: &'a mut W,
    /// Names, and values that are escaped already.
    labels: Vec<(String, String)>,
}

impl<'a, W: Write> Exposition<'a, W> {
    /// These labels go on every series.
    pub(crate) fn new(out: &'a mut W, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(name, value)| escaped(name, value));
        Self {
            out,
            labels: labels.collect(),
        }
    }

    /// What only grows. The name ends in `_total`.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, "counter", None)?;
        self.series(name, None, value)
    }

    /// What goes up and down.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, "gauge", None)?;
        self.series(name, None, Float(value))
    }

    /// One series for each value of one label.
    pub(crate) fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        self.family(name, help, "counter", Some(label))?;
        values
            .iter()
            .try_for_each(|(of, value)| self.series(name, Some((label, of)), value))
    }

    /// One series for each value of one label.
    pub(crate) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, f64)],
    ) -> fmt::Result {
        self.family(name, help, "gauge", Some(label))?;
        values
            .iter()
            .try_for_each(|(of, value)| self.series(name, Some((label, of)), Float(*value)))
    }

    /// Cumulative counts for each upper bound, without +Inf, which is `count`.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: &[(f64, u64)],
        sum: f64,
        count: u64,
    ) -> fmt::Result {
        self.family(name, help, "histogram", Some("le"))?;
        let bucket = format!("{name}_bucket");
        for (bound, value) in buckets.iter().chain([&(f64::INFINITY, count)]) {
            let bound = Float(*bound).to_string();
            self.series(&bucket, Some(("le", &bound)), value)?;
        }
        self.series(&format!("{name}_sum"), None, Float(sum))?;
        self.series(&format!("{name}_count"), None, count)
    }

    /// The lines before the series of one metric, whose own label is `label`.
    fn family(&mut self, name: &str, help: &str, kind: &str, label: Option<&str>) -> fmt::Result {
        self.check(label)?;
        // A quote needs no escape here.
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn check(&self, label: Option<&str>) -> fmt::Result {
        let mut names: Vec<&str> = self.labels.iter().map(|(name, _)| name.as_str()).collect();
        names.extend(label);
        let are_names = names.iter().all(|name| is_label_name(name));
        let asked = names.len();
        names.sort_unstable();
        names.dedup();
        if are_names && names.len() == asked {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }

    fn series(
        &mut self,
        name: &str,
        label: Option<(&str, &str)>,
        value: impl fmt::Display,
    ) -> fmt::Result {
        let own = label.map(|(name, value)| escaped(name, value));
        self.out.write_str(name)?;
        let mut before = '{';
        for (name, value) in self.labels.iter().chain(&own) {
            write!(self.out, "{before}{name}=\"{value}\"")?;
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        writeln!(self.out, "{end} {value}")
    }
}

/// A label as it is written.
fn escaped(name: &str, value: &str) -> (String, String) {
    let value = value.replace('\\', r"\\").replace('"', r#"\""#);
    (name.to_owned(), value.replace('\n', r"\n"))
}

fn is_label_name(name: &str) -> bool {
    let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    name.chars().all(is_word)
        && name.starts_with(|first: char| !first.is_ascii_digit())
        && !name.starts_with("__")
}

/// A count as the value of a gauge.
#[allow(
    clippy::cast_precision_loss,
    reason = "above 2^53 nobody misses one of them"
)]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}

/// A number as Prometheus writes it.
struct Float(f64);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            // Not a number is `NaN` here as there.
            value => value.fmt(f),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Panics unless this is a page that Prometheus reads: each metric is one group that begins
    /// with its help and its type, no series is there twice, and counters end in `_total`.
    pub(crate) fn check(page: &str) {
        assert!(page.ends_with('\n'), "the last line has no end");
        let (mut families, mut seen) = (HashSet::new(), HashSet::new());
        let (mut helped, mut family, mut kind) = ("", "", "");
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split_once(' ').expect(line).0;
                assert!(families.insert(helped), "a second group: {line}");
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                (family, kind) = typed.split_once(' ').expect(line);
                assert_eq!(family, helped, "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let (name, labels) = match series.split_once('{') {
                    Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
                    None => (series, ""),
                };
                let part = name.strip_prefix(family).expect(line);
                let parts: &[_] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(parts.contains(&part), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(seen.insert(series), "a second time: {line}");
                check_labels(labels);
            }
        }
    }

    /// `name="value",name="value"`.
    fn check_labels(mut labels: &str) {
        while !labels.is_empty() {
            let (name, rest) = labels.split_once("=\"").expect(labels);
            assert!(is_label_name(name), "{name}");
            let mut escaped = false;
            let end = rest.find(|c| {
                let is_end = c == '"' && !escaped;
                assert!(!escaped || "\\\"n".contains(c), "{labels}");
                escaped = c == '\\' && !escaped;
                is_end
            });
            labels = &rest[end.expect(labels) + 1..];
            labels = labels.strip_prefix(',').unwrap_or(labels);
        }
    }

    fn page(labels: &[(&str, &str)]) -> Result<String, fmt::Error> {
        let mut page = String::new();
        let mut to = Exposition::new(&mut page, labels);
        to.counter("calls_total", "Calls.", u64::MAX)?;
        to.gauge("in_use", "In use.", 2.0)?;
        to.counters("errors_total", "Errors.", "kind", &[("busy", 1), ("no", 0)])?;
        to.gauges("breaker", "The breaker.", "state", &[("open", 1.0)])?;
        let buckets = [(0.005, 1), (1.0, 2)];
        to.histogram("took_seconds", "Time.", &buckets, 0.25, 3)?;
        Ok(page)
    }

    #[test]
    fn a_page_has_exactly_this_text() {
        let expected = "\
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{app=\"x\"} 18446744073709551615
# HELP in_use In use.
# TYPE in_use gauge
in_use{app=\"x\"} 2
# HELP errors_total Errors.
# TYPE errors_total counter
errors_total{app=\"x\",kind=\"busy\"} 1
errors_total{app=\"x\",kind=\"no\"} 0
# HELP breaker The breaker.
# TYPE breaker gauge
breaker{app=\"x\",state=\"open\"} 1
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_bucket{app=\"x\",le=\"0.005\"} 1
took_seconds_bucket{app=\"x\",le=\"1\"} 2
took_seconds_bucket{app=\"x\",le=\"+Inf\"} 3
took_seconds_sum{app=\"x\"} 0.25
took_seconds_count{app=\"x\"} 3
";
        assert_eq!(page(&[("app", "x")]).unwrap(), expected);
        check(expected);
        let bare = page(&[]).unwrap();
        assert_eq!(
            bare,
            expected
                .replace("app=\"x\",", "")
                .replace("{app=\"x\"}", "")
        );
        check(&bare);
    }

    #[test]
    fn what_a_value_or_a_help_may_not_hold_is_escaped() {
        let mut page = String::new();
        let mut to = Exposition::new(&mut page, &[("a", "\\ \" \n } é"), ("b", "")]);
        to.gauge("x", "\\ \" \n é", 0.0).unwrap();
        let expected = r#"# HELP x \\ " \n é
# TYPE x gauge
x{a="\\ \" \n } é",b=""} 0
"#;
        assert_eq!(page, expected);
        check(&page);
    }

    #[test]
    fn numbers_are_those_of_prometheus() {
        let shown = |value| Float(value).to_string();
        assert_eq!(shown(f64::INFINITY), "+Inf");
        assert_eq!(shown(f64::NEG_INFINITY), "-Inf");
        assert_eq!(shown(f64::NAN), "NaN");
        assert_eq!(shown(1.5e-7), "0.00000015");
    }

    #[test]
    fn labels_that_cannot_be_write_nothing() {
        for name in [
            "", "1a", "a-b", "a b", "é", "__name__", "kind", "state", "le",
        ] {
            // The last three are labels of metrics themselves.
            assert!(page(&[(name, "x")]).is_err(), "{name}");
        }
        assert!(page(&[("a", "x"), ("a", "y")]).is_err());
        let mut text = String::new();
        let mut to = Exposition::new(&mut text, &[("a-b", "x")]);
        assert!(to.gauge("x", "X.", 0.0).is_err() && text.is_empty());
        assert!(page(&[("_a1", "x"), ("B", "x")]).is_ok());
    }
}
