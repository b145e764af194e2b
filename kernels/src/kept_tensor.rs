//! Tensors whose memory is used again: each step makes the same ones.

use std::{cell::RefCell, fmt, ops::Deref, rc::Rc};

use candle_core::{CpuStorage, DType, Device, Error, InplaceOp1, Layout, Result, Shape, Tensor};

use crate::cpu::RowsMut;

/// A tensor for an op to write. When it and its views are gone, its memory is kept for the next one of about its size that the same
/// thread makes, which is then neither asked for nor cleared.
#[derive(Clone)]
pub struct KeptTensor {
    tensor: Tensor,
    lease: Rc<Lease>,
}

/// Memory in use.
struct Lease(Memory);

/// So many numbers, and what they were made into. Sizes are powers of two, so that few of them serve all shapes.
struct Memory {
    whole: Tensor,
    used: Tensor,
}

thread_local! {
    static FREE: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

impl KeptTensor {
    /// f32 of this shape, whatever the numbers are.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let size = shape.elem_count().next_power_of_two();
        // The one freed last is nearest.
        let known = FREE.with_borrow_mut(|free| {
            let has_shape = |memory: &Memory| memory.used.shape() == &shape;
            let place = free.iter().rposition(has_shape);
            let place = place.or_else(|| free.iter().rposition(|memory| memory.whole.elem_count() == size));
            place.map(|place| free.remove(place))
        });
        let memory = match known {
            Some(memory) if memory.used.shape() == &shape => memory,
            Some(memory) => Memory::with(memory.whole, &shape)?,
            None => Memory::with(Tensor::zeros(size, DType::F32, &Device::Cpu)?, &shape)?,
        };
        Ok(Self { tensor: memory.used.clone(), lease: Rc::new(Lease(memory)) })
    }

    /// [`Tensor::narrow`].
    ///
    /// # Errors
    /// As there.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        Ok(Self { tensor: self.tensor.narrow(dim, start, len)?, lease: Rc::clone(&self.lease) })
    }

    /// [`Tensor::reshape`] of one whose numbers lie side by side.
    ///
    /// # Errors
    /// As there.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        Ok(Self { tensor: self.tensor.reshape(shape.into())?, lease: Rc::clone(&self.lease) })
    }

    /// What `run` makes of all numbers, row after row. They may be changed.
    ///
    /// # Errors
    /// When they are not on the CPU.
    pub fn with_numbers<R>(&self, run: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
        let call = Call(RefCell::new((Some(run), None)));
        self.inplace_op1(&call)?;
        call.0.into_inner().1.ok_or_else(|| Error::msg("with_numbers: the op has not run"))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Memory { whole, used } = &self.0;
        let memory = Memory { whole: whole.clone(), used: used.clone() };
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| free.borrow_mut().push(memory));
    }
}

/// A function that is called once, and its result.
struct Call<F, R>(RefCell<(Option<F>, Option<R>)>);

impl<F: FnOnce(&mut [f32]) -> R, R> InplaceOp1 for Call<F, R> {
    fn name(&self) -> &'static str {
        "with_numbers"
    }

    fn cpu_fwd(&self, numbers: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let numbers = RowsMut::new(self.name(), numbers, layout)?;
        let mut call = self.0.borrow_mut();
        call.1 = call.0.take().map(|run| run(numbers.data));
        Ok(())
    }
}

impl Memory {
    fn with(whole: Tensor, shape: &Shape) -> Result<Self> {
        let used = whole.narrow(0, 0, shape.elem_count())?.reshape(shape)?;
        Ok(Self { whole, used })
    }
}

impl Deref for KeptTensor {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

impl fmt::Debug for KeptTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensor.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_by_what_is_no_larger() {
        let address = |tensor: KeptTensor| tensor.with_numbers(|numbers| numbers.as_ptr() as usize).unwrap();
        let numbers = |shape: (usize, usize)| KeptTensor::new(shape).unwrap();
        let first = address(numbers((5, 7)));
        assert_eq!(address(numbers((5, 7))), first);
        assert_eq!(address(numbers((3, 11))), first, "as many, rounded up");
        let (one, other) = (numbers((5, 7)), numbers((5, 7)));
        one.with_numbers(|numbers| numbers.fill(1.0)).unwrap();
        other.with_numbers(|numbers| numbers.fill(2.0)).unwrap();
        assert_eq!(one.to_vec2::<f32>().unwrap(), [[1.0; 7]; 5], "in use");
        let third = numbers((65, 1));
        assert_eq!(third.dims(), [65, 1]);
        assert_eq!(third.to_vec2::<f32>().unwrap(), vec![vec![0.0]; 65], "new memory");
    }

    #[test]
    fn none_at_all() {
        assert_eq!(KeptTensor::new((0, 9)).unwrap().to_vec2::<f32>().unwrap(), Vec::<Vec<f32>>::new());
    }
}
