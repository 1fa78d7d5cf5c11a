// Compiled once for each instruction set, with DIFFEO_ISA as its name. Everything lives in that namespace, and
// nothing here may instantiate a shared inline function (std::vector and the like): the linker keeps one copy of
// those for all sets.
#include "images.hpp"

namespace diffeo::DIFFEO_ISA {

extern const Table table;
const Table table = {
    run<float>,         run<double>,         back<float>, back<double>, scalar<float>, scalar<double>,
    conv_memory<float>, conv_memory<double>, conv<float>, conv<double>,
};

} // namespace diffeo::DIFFEO_ISA
