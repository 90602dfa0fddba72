//! What the operator has written, as the API server itself counts it: each class of writes of its account has a flow
//! schema of its own.

/// A class of writes.
pub(super) struct Schema {
    pub(super) name: &'static str,
    pub(super) resources: &'static [&'static str],
}

/// The classes; a write belongs to the first that has its resource.
pub(super) const SCHEMAS: [Schema; 5] = [
    Schema {
        name: "bench-statuses",
        resources: &["hookendpoints/status", "hooksubscriptions/status", "hookpools/status", "hookreplays/status"],
    },
    Schema { name: "bench-secrets", resources: &["secrets"] },
    Schema { name: "bench-events", resources: &["events"] },
    Schema { name: "bench-leases", resources: &["leases"] },
    Schema { name: "bench-others", resources: &["*"] },
];

/// Requests that the API server has carried out, or begun to, by their flow schema.
const METRIC: &str = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"";

/// Writes so far, or between two moments, by the place of their class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Writes([f64; SCHEMAS.len()]);

impl Writes {
    /// Reads the API server's metrics.
    pub(super) fn read(metrics: &str) -> Self {
        let mut writes = Self::default();
        for line in metrics.lines().filter_map(|line| line.strip_prefix(METRIC)) {
            let Some((name, rest)) = line.split_once('"') else { continue };
            let value = rest.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            let index = SCHEMAS.iter().position(|schema| schema.name == name);
            if let (Some(index), Some(value)) = (index, value) {
                writes.0[index] += value;
            }
        }
        writes
    }

    /// Those since an earlier moment.
    pub(super) fn since(self, before: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] - before.0[index]))
    }

    /// Of statuses.
    pub(super) fn statuses(self) -> f64 {
        self.0[0]
    }

    /// Of Secrets.
    pub(super) fn secrets(self) -> f64 {
        self.0[1]
    }

    /// Of Kubernetes Events.
    pub(super) fn events(self) -> f64 {
        self.0[2]
    }

    /// Of Leases.
    pub(super) fn leases(self) -> f64 {
        self.0[3]
    }

    /// All but those of Leases, which tell nothing but that the operator lives.
    pub(super) fn all(self) -> f64 {
        self.0.iter().sum::<f64>() - self.leases()
    }
}

/// The value of a metric in its text form; `series` is its name with its labels.
pub(super) fn metric(metrics: &str, series: &str) -> Option<f64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    value.split(' ').next()?.parse().ok()
}

/// A whole number of them, zero if there is none.
pub(super) fn count(metrics: &str, series: &str) -> f64 {
    metric(metrics, series).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_read_by_their_class_and_subtracted() {
        let metrics = |statuses: u32| {
            format!(
                "# HELP x\n{METRIC}bench-statuses\",priority_level=\"workload-low\"}} {statuses}\n\
                 {METRIC}bench-leases\",priority_level=\"workload-low\"}} 3\n\
                 {METRIC}service-accounts\",priority_level=\"workload-low\"}} 99\n\
                 {METRIC}bench-secrets\",priority_level=\"workload-low\"}} 2e+00\n"
            )
        };
        let before = Writes::read(&metrics(5));
        assert_eq!((before.statuses(), before.secrets(), before.leases(), before.all()), (5.0, 2.0, 3.0, 7.0));
        let since = Writes::read(&metrics(9)).since(before);
        assert_eq!((since.statuses(), since.leases(), since.all()), (4.0, 0.0, 4.0));
    }

    #[test]
    fn a_metric_is_found_by_its_whole_series() {
        let text = "# TYPE a gauge\na_b 7\na{k=\"v\"} 3\na 12\n";
        assert_eq!(metric(text, "a"), Some(12.0));
        assert_eq!(metric(text, "a{k=\"v\"}"), Some(3.0));
        assert_eq!((metric(text, "b"), count(text, "b")), (None, 0.0));
    }
}
