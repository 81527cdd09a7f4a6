"""Layer 1: numbers only, knows no model. Each op has a plain reference and faster twins under one contract.

One op is one folder: `__init__` (contract, checks, preference table), `reference` (the specification in
plain torch), `triton` where GPUs have no better, `cases` (what it is tested and timed on); its compiled kernel is
`csrc/cpu/<op>.cpp`.
Kernels are loaded on first use, never by this import.
"""

from xai_fast.ops._dispatch import BackendError as BackendError
from xai_fast.ops._dispatch import Op as Op
from xai_fast.ops._dispatch import all_ops as all_ops
from xai_fast.ops._dispatch import backends as backends
from xai_fast.ops._dispatch import check_available as check_available
from xai_fast.ops._dispatch import using as using
from xai_fast.ops._grids import cell_extent as cell_extent
from xai_fast.ops._library import instruction_sets as instruction_sets
from xai_fast.ops._library import limited_to as limited_to
from xai_fast.ops._panels import register_panel as register_panel
from xai_fast.ops._repeated import Repeated as Repeated
from xai_fast.ops.add_noise import add_noise as add_noise
from xai_fast.ops.bias_relu import bias_relu as bias_relu
from xai_fast.ops.blend_maps import blend_maps as blend_maps
from xai_fast.ops.byte_hash import byte_hash as byte_hash
from xai_fast.ops.cam_reduce import cam_reduce as cam_reduce
from xai_fast.ops.gated_pointwise import gated_pointwise as gated_pointwise
from xai_fast.ops.grid_masks import grid_masks as grid_masks
from xai_fast.ops.grid_reduce import grid_maps as grid_maps
from xai_fast.ops.grid_reduce import grid_reduce as grid_reduce
from xai_fast.ops.hide_segments import hide_segments as hide_segments
from xai_fast.ops.hide_windows import hide_windows as hide_windows
from xai_fast.ops.inverted_bottleneck import BottleneckWeights as BottleneckWeights
from xai_fast.ops.inverted_bottleneck import bottleneck_weights as bottleneck_weights
from xai_fast.ops.inverted_bottleneck import inverted_bottleneck as inverted_bottleneck
from xai_fast.ops.moments import moments as moments
from xai_fast.ops.pass_bits import pass_bits as pass_bits
from xai_fast.ops.path_points import path_points as path_points
from xai_fast.ops.region_gather import region_gather as region_gather
from xai_fast.ops.relu_change import relu_change as relu_change
from xai_fast.ops.sign_bits import sign_bits as sign_bits
from xai_fast.ops.surrogate_normal import surrogate_normal as surrogate_normal
from xai_fast.ops.window_mean import window_mean as window_mean
from xai_fast.ops.winograd_convolution import winograd_convolution as winograd_convolution
from xai_fast.ops.winograd_convolution import winograd_kernels as winograd_kernels
