# Leaves code behind that the next program's interpreter would load.
import os
import sys
from target import attempt

attempt("the interpreter", open, sys.executable, "r+b")
attempt("the library", open, os.__file__, "a")
attempt("a module beside it", open, os.path.join(os.path.dirname(os.__file__), "usercustomize.py"), "w")
