use crate::DecodeError;
use crate::scan::{BLOCK, block_maxima};

/// The token with the highest score, the lowest id among equals: one step of greedy search.
///
/// `scores` are the logits or log-probabilities of one row, `[vocabulary]`; minus infinity marks an impossible token.
///
/// # Errors
/// An empty row, NaN, plus infinity, or nothing but minus infinity.
pub fn argmax(scores: &[f32]) -> Result<u32, DecodeError> {
    let mut maxima = Vec::new();
    let max = block_maxima(scores, 0, &mut maxima)?;
    Ok(first_maximum(scores, max, &maxima))
}

/// The lowest token whose score is `max`, given the maxima of blocks.
pub(crate) fn first_maximum(scores: &[f32], max: f32, maxima: &[f32]) -> u32 {
    let start = maxima.iter().position(|&block_max| block_max == max).unwrap_or(0) * BLOCK;
    let within = scores[start..].iter().position(|&score| score == max).unwrap_or(0);
    (start + within) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_go_to_the_lowest_id() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), Ok(1));
        assert_eq!(argmax(&vec![0.25; 1000]), Ok(0));
        assert_eq!(argmax(&[-0.0, 0.0]), Ok(0));
        assert_eq!(argmax(&[f32::NEG_INFINITY, -1e30]), Ok(1));
    }

    #[test]
    fn broken_scores_are_errors() {
        assert_eq!(argmax(&[]), Err(DecodeError::EmptyVocabulary));
        assert_eq!(argmax(&[0.0, f32::NAN]), Err(DecodeError::NotANumber { row: 0, token: 1 }));
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), Err(DecodeError::NothingPossible { row: 0 }));
    }

    proptest! {
        #[test]
        fn is_the_first_maximum(scores in prop::collection::vec((-5i8..5).prop_map(f32::from), 1..300)) {
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = scores.iter().position(|&score| score == max).unwrap();
            prop_assert_eq!(argmax(&scores), Ok(first as u32));
        }
    }
}
