// Stands in for Gloo's header of this name; c10d's headers use nothing of it.
#pragma once
