/* For clang-tidy only: it cannot see that these always return false, and would report every output
 * that is unset on the error path. */
#pragma once

#include "base/err.h"

#define err_set(...) ((void)!err_set(__VA_ARGS__), false)
#define err_wrap(...) ((void)!err_wrap(__VA_ARGS__), false)
#define err_hint(...) ((void)!err_hint(__VA_ARGS__), false)
