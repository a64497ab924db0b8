//! The end of a run: the best checkpoints averaged, the better model published.

use burn::tensor::Device;
use weft_models::{Architecture, checkpoint};

use super::{Observer, Trainer};
use crate::average::average;
use crate::checkpoint::Manifest;
use crate::error::TrainError;
use crate::event::{Event, Outcome};

impl<M: Architecture> Trainer<M> {
    pub(super) fn end(&mut self, outcome: Outcome, observer: Observer<'_>) -> Result<Option<Outcome>, TrainError> {
        self.publish(observer)?;
        self.outcome = Some(outcome);
        Ok(self.outcome)
    }

    /// Makes the best checkpoint, or the average of the best ones if it validates better, the run's model.
    fn publish(&mut self, observer: Observer<'_>) -> Result<(), TrainError> {
        let kept = self.state.best.iter().map(|best| (*best, self.folder.checkpoint_path(best.step)));
        let whole: Vec<_> = kept.filter(|(_, path)| Manifest::verify(path).is_ok()).collect();
        let Some((best, best_path)) = whole.first().cloned() else {
            // Nothing was ever validated: the newest is what there is.
            let (path, _, _) = self.folder.newest_whole()?;
            return self.folder.publish(&path);
        };
        let count = self.config.training.average.min(whole.len());
        if count < 2 {
            return self.folder.publish(&best_path);
        }
        let (steps, paths): (Vec<u64>, Vec<_>) =
            whole[..count].iter().map(|(best, path)| (best.step, path.clone())).unzip();
        let candidate = self.folder.path().join(".average");
        average(&paths, &candidate)?;
        let device: Device = self.device.clone().inner();
        let model: M = checkpoint::load(&candidate, &device)?;
        let metric = self.metric();
        let score = self.validation(&model)?.score(metric);
        let chosen = metric.is_better(score, best.score);
        self.folder.publish(if chosen { &candidate } else { &best_path })?;
        std::fs::remove_dir_all(&candidate).map_err(TrainError::write(&candidate))?;
        observer(&Event::Averaged { steps, score, best: best.score, chosen });
        Ok(())
    }
}
