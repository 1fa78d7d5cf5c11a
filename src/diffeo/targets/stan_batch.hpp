// Appended to the C++ that stanc writes of a model and compiled with it: the model is built from its data
// once, then evaluated in batches of rows. Plain C functions, for ctypes.
#include <algorithm>
#include <limits>
#include <sstream>
#include <stan/io/json/json_data.hpp>
#include <stan/model/log_prob_grad.hpp>
#include <stan/services/util/create_rng.hpp>

namespace {

using Model = stan::model::model_base;

const Model& of(void* handle) { return *static_cast<Model*>(handle); }

void say(const std::string& text, char* message, long size) {
  message[text.copy(message, size - 1)] = '\0';
}

// Runs one(row) for every row; gives the first row that failed for good, or -1. What Stan calls a domain error
// rejects the row, as in its own sampler.
template <class One, class Rejected>
long each(long rows, char* message, long size, One one, Rejected rejected) {
  thread_local stan::math::ChainableStack tape;  // Stan's gradients need one in every thread
  for (long row = 0; row < rows; ++row) try {
      try {
        one(row);
      } catch (const std::domain_error&) {
        rejected(row);
      }
    } catch (const std::exception& error) {
      say(error.what(), message, size);
      return row;
    }
  return -1;
}

}  // namespace

#define DIFFEO extern "C" __attribute__((visibility("default")))

// The model of this data (JSON); null, and the reason, when they do not fit.
DIFFEO void* diffeo_new(const char* data, char* message, long size) try {
  std::istringstream in(data);
  stan::json::json_data context(in);
  std::ostringstream printed;
  return &new_model(context, 1, &printed);
} catch (const std::exception& error) {
  say(error.what(), message, size);
  return nullptr;
}

DIFFEO void diffeo_delete(void* handle) { delete static_cast<Model*>(handle); }

DIFFEO long diffeo_features(void* handle) { return of(handle).num_params_r(); }

// One line a variable, its name and its dimensions; gives the length of the whole text.
DIFFEO long diffeo_variables(void* handle, bool derived, char* text, long size) {
  std::vector<std::string> names;
  std::vector<std::vector<size_t>> dims;
  of(handle).get_param_names(names, derived, derived);
  of(handle).get_dims(dims, derived, derived);
  std::ostringstream lines;
  for (size_t i = 0; i < names.size(); ++i) {
    lines << names[i];
    for (size_t dim : dims[i]) lines << ' ' << dim;
    lines << '\n';
  }
  say(lines.str(), text, size);
  return lines.str().size();
}

// Normalized as the program has it (no constant is dropped), with the Jacobian; grad may be null.
DIFFEO long diffeo_log_prob(void* handle, const double* u, long rows, double* value, double* grad,
                            char* message, long size) {
  const Model& model = of(handle);
  const size_t features = model.num_params_r();
  std::vector<double> point, slope;
  std::vector<int> none;
  std::ostringstream printed;
  auto rejected = [&](long row) {
    value[row] = -std::numeric_limits<double>::infinity();
    if (grad) std::fill_n(grad + row * features, features, 0.0);
  };
  auto one = [&](long row) {
    point.assign(u + row * features, u + (row + 1) * features);
    if (!grad) {
      value[row] = model.log_prob_jacobian(point, none, &printed);
      return;
    }
    value[row] = stan::model::log_prob_grad<false, true>(model, point, none, slope, &printed);
    std::copy(slope.begin(), slope.end(), grad + row * features);
  };
  return each(rows, message, size, one, rejected);
}

// Constrained values of each row, in the order of diffeo_variables; NaN from where Stan rejected it.
DIFFEO long diffeo_constrain(void* handle, const double* u, long rows, bool derived, double* out, long width,
                             char* message, long size) {
  const Model& model = of(handle);
  const size_t features = model.num_params_r();
  auto rng = stan::services::util::create_rng(1, 1);
  std::vector<double> point, values;
  std::vector<int> none;
  std::ostringstream printed;
  auto keep = [&](long row) {
    std::copy_n(values.begin(), std::min<size_t>(width, values.size()), out + row * width);
  };
  auto one = [&](long row) {
    point.assign(u + row * features, u + (row + 1) * features);
    std::fill_n(out + row * width, width, std::numeric_limits<double>::quiet_NaN());
    model.write_array(rng, point, none, values, derived, derived, &printed);
    keep(row);
  };
  return each(rows, message, size, one, keep);
}

DIFFEO long diffeo_unconstrain(void* handle, const double* x, long rows, long width, double* out, char* message,
                               long size) {
  const Model& model = of(handle);
  const size_t features = model.num_params_r();
  std::vector<double> point;
  auto one = [&](long row) {
    model.unconstrain_array(std::vector<double>(x + row * width, x + (row + 1) * width), point, nullptr);
    std::copy(point.begin(), point.end(), out + row * features);
  };
  return each(rows, message, size, one, [](long) { throw; });
}
