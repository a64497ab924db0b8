//! Measurements against what they should say.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use burn::Tensor;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, TensorData};
use weft_models::gpt::{Gpt, GptConfig};
use weft_models::llama::{Llama, LlamaConfig};
use weft_models::mamba::{Mamba, MambaConfig};
use weft_models::mamba2::{Mamba2, Mamba2Config};
use weft_models::recurrent_lm::{RecurrentLm, RecurrentLmConfig};
use weft_models::rwkv4::{Rwkv4, Rwkv4Config};
use weft_models::rwkv7::{Rwkv7, Rwkv7Config};
use weft_models::{Architecture, CellKind, LanguageModel};
use weft_train::{gradient_norms, measure_attention};

/// Adds a fixed noise to every parameter: what starts at zero would hide gradients.
struct Moved(u32);

impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|values| {
            let (shape, device) = (values.dims(), values.device());
            let mut noise = || {
                self.0 += 1;
                0.3 * (f64::from(self.0) * 12.9898).sin() as f32
            };
            let noise: Vec<f32> = (0..shape.iter().product()).map(|_| noise()).collect();
            values + Tensor::from_data(TensorData::new(noise, shape), &device)
        })
    }
}

/// The loss of token `last` after the vectors `x`, `[1, time, hidden]`.
fn last_loss<M: LanguageModel>(model: &M, x: Tensor<3>, last: usize) -> f64 {
    let time = x.dims()[1];
    let logits = model.read_embedded(x, &mut model.start(1)).narrow(1, time - 1, 1).squeeze_dim::<2>(1);
    let values: Vec<f32> = log_softmax(logits, 1).into_data().try_to_vec().unwrap();
    -f64::from(values[last])
}

fn agrees_with_finite_differences<M: Architecture + LanguageModel>(config: &M::Config) {
    const STEP: f32 = 0.01;
    let plain = M::new(config, 3, &Device::flex()).map(&mut Moved(0));
    let tokens = [3u32, 1, 7, 1, 4, 9, 2];
    let time = tokens.len() - 1;
    let found = gradient_norms(&M::new(config, 3, &Device::flex().autodiff()).map(&mut Moved(0)), &[&tokens]);
    assert_eq!(found.len(), time);
    let ids: Vec<i32> = tokens[..time].iter().map(|&token| token as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, time]), &Device::flex());
    let x = plain.embed(ids, &plain.start(1));
    let width = x.dims()[2];
    let values: Vec<f32> = x.into_data().try_to_vec().unwrap();
    for (place, norm) in found.iter().rev().enumerate() {
        let slope = |column: usize| {
            let loss = |step: f32| {
                let mut values = values.clone();
                values[place * width + column] += step;
                let x = Tensor::from_data(TensorData::new(values, [1, time, width]), &Device::flex());
                last_loss(&plain, x, tokens[time] as usize)
            };
            (loss(STEP) - loss(-STEP)) / f64::from(2.0 * STEP)
        };
        let wanted = (0..width).map(|column| slope(column).powi(2)).sum::<f64>().sqrt();
        assert!((norm - wanted).abs() <= 0.02 * wanted + 1e-4, "{} at {place}: {norm}, not {wanted}", M::MODEL_TYPE);
        assert!(*norm > 1e-4, "{} at {place}: {norm}", M::MODEL_TYPE);
    }
}

#[test]
fn gradients_by_distance_agree_with_finite_differences() {
    for cell in [CellKind::Rnn, CellKind::Lstm, CellKind::Gru] {
        agrees_with_finite_differences::<RecurrentLm>(&RecurrentLmConfig {
            cell,
            vocab_size: 10,
            hidden_size: 8,
            embedding_size: 8,
            ..RecurrentLmConfig::default()
        });
    }
    let gpt = GptConfig { vocab_size: 10, hidden_size: 8, num_heads: 2, num_layers: 2, ..GptConfig::default() };
    agrees_with_finite_differences::<Gpt>(&gpt);
    let mamba = MambaConfig { vocab_size: 10, hidden_size: 8, num_layers: 2, ..MambaConfig::default() };
    agrees_with_finite_differences::<Mamba>(&mamba);
    agrees_with_finite_differences::<Llama>(&LlamaConfig {
        vocab_size: 10,
        max_positions: 16,
        hidden_size: 8,
        intermediate_size: 12,
        num_layers: 2,
        num_heads: 2,
        num_kv_heads: 1,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    });
    agrees_with_finite_differences::<Mamba2>(&Mamba2Config {
        vocab_size: 10,
        hidden_size: 8,
        num_layers: 2,
        num_heads: 2,
        head_dim: 8,
        num_groups: 1,
        state_size: 8,
        ..Mamba2Config::default()
    });
    let rwkv4 = Rwkv4Config { vocab_size: 10, hidden_size: 8, num_layers: 2, ..Rwkv4Config::default() };
    agrees_with_finite_differences::<Rwkv4>(&rwkv4);
    let rwkv7 = Rwkv7Config { vocab_size: 10, hidden_size: 8, head_dim: 4, num_layers: 2, ..Rwkv7Config::default() };
    agrees_with_finite_differences::<Rwkv7>(&rwkv7);
}

#[test]
fn gradients_are_a_mean_over_windows() {
    let config =
        RecurrentLmConfig { vocab_size: 10, hidden_size: 8, embedding_size: 8, ..RecurrentLmConfig::default() };
    let model = RecurrentLm::new(&config, 3, &Device::flex().autodiff());
    let windows: Vec<Vec<u32>> = (0..7).map(|i| (0..9).map(|j| (i * 3 + j * j) % 10).collect()).collect();
    let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
    let together = gradient_norms(&model, &windows);
    let mut apart = vec![0.0; 8];
    for window in &windows {
        let norms = gradient_norms(&model, &[window]);
        apart.iter_mut().zip(norms).for_each(|(sum, norm)| *sum += norm / 7.0);
    }
    let off = together.iter().zip(&apart).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs() / b));
    assert!(off < 1e-4, "{together:?} {apart:?}");
}

#[test]
fn attention_is_measured_at_every_length() {
    let calls = std::cell::Cell::new(0);
    let meter = |work: &mut dyn FnMut()| {
        work();
        calls.set(calls.get() + 1);
        Some(calls.get())
    };
    let [stored, in_blocks, _] = measure_attention(16, 2, &[8, 32], &meter, &Device::flex());
    for (index, cost) in stored.iter().chain(&in_blocks).enumerate() {
        assert_eq!((cost.length, cost.peak_bytes), ([8, 32][index % 2], Some(index + 1)));
        assert!(cost.seconds_per_token > 0.0);
    }
}

#[test]
fn heads_attend_to_what_came_before() {
    let config = GptConfig { vocab_size: 10, hidden_size: 8, num_heads: 2, num_layers: 3, ..GptConfig::default() };
    let model = Gpt::new(&config, 3, &Device::flex()).map(&mut Moved(0));
    let ids = Tensor::<2, Int>::from_data(TensorData::new(vec![3i32, 1, 7, 1, 4], [1, 5]), &Device::flex());
    let maps = model.attention_maps(ids);
    assert_eq!(maps.len(), 3);
    for map in maps {
        assert_eq!(map.dims(), [1, 2, 5, 5]);
        let weights: Vec<f32> = map.into_data().try_to_vec().unwrap();
        for (index, row) in weights.chunks(5).enumerate() {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
            assert!(row[index % 5 + 1..].iter().all(|&weight| weight == 0.0), "{row:?}");
        }
    }
}
