// Replaces Gloo's header of this name. c10d's headers use nothing from it.
#pragma once
