// Number types of the device are not used.
