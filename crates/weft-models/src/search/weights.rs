//! Weights laid out for decoding.

use burn::Tensor;
use burn::module::{Module, ModuleMapper, Param};

/// The same model with the weights `[out, in]` of its products stored column after column.
///
/// A step multiplies a few rows with every weight. Products read a weight along `out`; stored row after row it would be
/// transposed anew in every step. Tables of embeddings are read by row and stay.
pub(crate) fn by_columns<M: Module>(model: M) -> M {
    model.map(&mut ByColumns { containers: Vec::new() })
}

/// The same matrix, stored column after column.
pub(crate) fn stored_by_columns<const D: usize>(matrix: Tensor<D>) -> Tensor<D> {
    let device = matrix.device();
    Tensor::<D>::from_data(matrix.swap_dims(0, 1).into_data(), &device).swap_dims(0, 1)
}

struct ByColumns {
    /// The types of the structs from the model down to the parameter.
    containers: Vec<String>,
}

impl ModuleMapper for ByColumns {
    fn enter_module(&mut self, _: &str, container_type: &str) {
        self.containers.push(container_type.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let holder = self.containers.last().map_or("", String::as_str);
        if D != 2 || !matches!(holder, "Struct:Linear" | "Struct:RecurrentLayer") {
            return param;
        }
        param.map(stored_by_columns)
    }
}
