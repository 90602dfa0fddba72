//! Keeps one bad row from failing its whole batch for ever.

use std::collections::VecDeque;

use super::LedgerError;

/// Commits a batch with `commit`; when its data is refused, halves it until each offender stands alone.
///
/// Answers in the order asked. An error other than [`LedgerError::Refused`] ends the work at once: what was
/// committed by then is safe to commit again, since every write of the ledger is idempotent by identity.
pub async fn commit_halving<T, R>(
    batch: Vec<T>,
    mut commit: impl AsyncFnMut(Vec<T>) -> Result<Vec<R>, LedgerError>,
) -> Result<Vec<Result<R, LedgerError>>, LedgerError>
where
    T: Clone,
{
    let mut results = Vec::with_capacity(batch.len());
    let mut pending = VecDeque::from([batch]);
    while let Some(mut first) = pending.pop_front() {
        if first.is_empty() {
            continue;
        }
        match commit(first.clone()).await {
            Ok(answers) => results.extend(answers.into_iter().map(Ok)),
            Err(LedgerError::Refused(message)) if first.len() == 1 => {
                results.push(Err(LedgerError::Refused(message)));
            }
            Err(LedgerError::Refused(_)) => {
                let second = first.split_off(first.len() / 2);
                pending.push_front(second);
                pending.push_front(first);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn offenders_fail_alone_and_answers_keep_their_order() {
        let results = commit_halving((0..100).collect(), async |batch: Vec<i32>| {
            if batch.iter().any(|row| row % 40 == 7) {
                return Err(LedgerError::Refused("no".into()));
            }
            Ok(batch)
        })
        .await
        .unwrap();
        let good: Vec<i32> = results.iter().filter_map(|result| result.as_ref().ok().copied()).collect();
        assert_eq!(good, (0..100).filter(|row| row % 40 != 7).collect::<Vec<_>>());
        assert!(results[7].is_err() && results[47].is_err() && results[87].is_err());
    }

    #[tokio::test]
    async fn an_unavailable_ledger_ends_the_work() {
        let mut calls = 0;
        let result = commit_halving(vec![1, 2], async |_: Vec<i32>| {
            calls += 1;
            Err::<Vec<()>, _>(LedgerError::Unavailable("gone".into()))
        })
        .await;
        assert!(matches!(result, Err(LedgerError::Unavailable(_))));
        assert_eq!(calls, 1);
    }
}
