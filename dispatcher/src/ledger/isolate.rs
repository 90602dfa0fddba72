//! Keeps one bad row from failing its whole batch for ever.

use super::LedgerError;

/// What became of a batch.
#[derive(Debug)]
pub struct Halved<R> {
    /// Answers in the order asked; an offender has the ledger's refusal instead.
    pub answers: Vec<Result<R, LedgerError>>,
    /// Why the rest, if there is a rest, was not tried. What was committed by then is safe to commit again, since
    /// every write of the ledger is idempotent by identity.
    pub interrupted: Option<LedgerError>,
}

/// Commits a batch with `commit`; when its data is refused, halves it until each offender stands alone.
pub async fn commit_halving<T, R, F>(batch: &[T], commit: impl Fn(Vec<T>) -> F) -> Halved<R>
where
    T: Clone,
    F: Future<Output = Result<Vec<R>, LedgerError>>,
{
    let mut answers = Vec::with_capacity(batch.len());
    let mut pending = vec![batch];
    while let Some(slice) = pending.pop() {
        if slice.is_empty() {
            continue;
        }
        match commit(slice.to_vec()).await {
            Ok(committed) => answers.extend(committed.into_iter().map(Ok)),
            Err(LedgerError::Refused(_)) if slice.len() > 1 => {
                let (left, right) = slice.split_at(slice.len() / 2);
                pending.extend([right, left]);
            }
            Err(error @ LedgerError::Refused(_)) => answers.push(Err(error)),
            Err(error) => return Halved { answers, interrupted: Some(error) },
        }
    }
    Halved { answers, interrupted: None }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn offenders_fail_alone_and_answers_keep_their_order() {
        let batch: Vec<i32> = (0..100).collect();
        let halved = commit_halving(&batch, async |slice: Vec<i32>| {
            if slice.iter().any(|row| row % 40 == 7) { Err(LedgerError::Refused("no".into())) } else { Ok(slice) }
        })
        .await;
        assert!(halved.interrupted.is_none());
        let good: Vec<i32> = halved.answers.iter().filter_map(|answer| answer.as_ref().ok().copied()).collect();
        assert_eq!(good, (0..100).filter(|row| row % 40 != 7).collect::<Vec<_>>());
        assert!([7, 47, 87].iter().all(|place| halved.answers[*place].is_err()));
    }

    #[tokio::test]
    async fn an_unavailable_ledger_ends_the_work() {
        let calls = Cell::new(0);
        let halved = commit_halving(&[1, 2], async |_: Vec<i32>| {
            calls.set(calls.get() + 1);
            Err::<Vec<()>, _>(LedgerError::Unavailable("gone".into()))
        })
        .await;
        assert!(matches!(halved.interrupted, Some(LedgerError::Unavailable(_))));
        assert!(halved.answers.is_empty());
        assert_eq!(calls.get(), 1);
    }
}
