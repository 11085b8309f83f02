"""Fill in what was hidden of a film, in the space of what is perceived; the teacher of V-JEPA and of the baby."""
