# SPDX-License-Identifier: Apache-2.0
"""What a user is told of an error: in one line, with the thing, the value and the remedy."""
