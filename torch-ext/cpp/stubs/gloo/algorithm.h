// Part of the declarations of gloo that c10d's headers name.
//
// The PyPI wheel of torch ships gloo's code inside libtorch_cpu but not its headers. c10d's own headers use gloo's types
// by pointer or reference only, so that declarations are enough; each file of this folder declares just what its
// namesake must offer for them. Nothing of gloo is constructed, copied or called here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>
